throw new TypeError("no such thing");
