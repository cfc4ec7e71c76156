-- The read model that order-summary.ts keeps, in a database of its own. `npm start` makes it; elsewhere run this once.
--
-- Each row carries where its last change stood: the partition of its topic, and the position in it. A change takes
-- effect only where its position is above the stored one, so that a change that comes again, or late from an
-- invocation that was given up, does nothing. Positions compare as bytes: hence COLLATE "C".

CREATE TABLE orders (
  id bigint PRIMARY KEY,
  customer_id bigint,
  status text,
  total numeric(12,2),
  placed_at timestamptz,
  updated_at timestamptz,
  -- A deleted row stays as a tombstone: without it, a late change from before the delete would bring the row back.
  deleted_at timestamptz,
  topic_partition integer NOT NULL,
  position text COLLATE "C" NOT NULL
);

CREATE TABLE order_items (
  order_id bigint,
  line integer,
  sku text,
  quantity integer,
  price numeric(12,2),
  deleted_at timestamptz,
  topic_partition integer NOT NULL,
  position text COLLATE "C" NOT NULL,
  PRIMARY KEY (order_id, line)
);

-- A truncate comes once in each partition of the topic, and so does the sweep at the end of a backfill. The partition's
-- rows below its position (of a sweep: its bound) go, tombstones too: this mark keeps late changes away from all of them, and from those that had not arrived before it.
CREATE TABLE truncated (
  table_name text,
  topic_partition integer,
  position text COLLATE "C" NOT NULL,
  PRIMARY KEY (table_name, topic_partition)
);

-- What an application reads.
CREATE VIEW order_summary AS
  SELECT orders.id, orders.customer_id, orders.status, orders.total, orders.placed_at,
         count(items.line) AS lines, coalesce(sum(items.quantity), 0) AS pieces
  FROM orders
  LEFT JOIN order_items AS items ON items.order_id = orders.id AND items.deleted_at IS NULL
  WHERE orders.deleted_at IS NULL
  GROUP BY orders.id;

-- Tombstones may go once no change from before them can be under way any more: an invocation's timeout is enough, a day
-- is ample. Run this from time to time:
--   DELETE FROM orders WHERE deleted_at < now() - interval '1 day';
--   DELETE FROM order_items WHERE deleted_at < now() - interval '1 day';
