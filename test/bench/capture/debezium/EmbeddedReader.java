import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;

/**
 * Debezium's embedded engine, each event made JSON and counted: {@code EmbeddedReader <properties file> <changes>}.
 * Says {@code read at <milliseconds since 1970>} when it has seen so many changes, and goes on until it is ended.
 * https://debezium.io/documentation/reference/3.6/development/engine.html
 */
public final class EmbeddedReader {
  private static long changes = 0;
  private static long characters = 0;

  public static void main(String[] args) throws Exception {
    Properties properties = new Properties();
    try (var file = Files.newBufferedReader(Path.of(args[0]))) {
      properties.load(file);
    }
    long expected = Long.parseLong(args[1]);
    DebeziumEngine<ChangeEvent<String, String>> engine =
        DebeziumEngine.create(Json.class)
            .using(properties)
            .using(
                (success, message, error) -> {
                  System.err.println(message);
                  System.exit(1);
                })
            .notifying((events, committer) -> count(events, committer, expected))
            .build();
    engine.run();
  }

  private static void count(
      List<ChangeEvent<String, String>> events,
      DebeziumEngine.RecordCommitter<ChangeEvent<String, String>> committer,
      long expected)
      throws InterruptedException {
    for (ChangeEvent<String, String> event : events) {
      characters += event.value().length();
      committer.markProcessed(event);
    }
    committer.markBatchFinished();
    boolean before = changes < expected;
    changes += events.size();
    if (before && changes >= expected) {
      System.out.println("read at " + System.currentTimeMillis());
      System.out.println(characters + " characters");
    }
  }
}
