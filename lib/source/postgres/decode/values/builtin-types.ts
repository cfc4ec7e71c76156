/** Form of a built-in type's text in events, and in a key. */
export type BuiltinForm =
  | "text"
  | "boolean"
  | "number"
  | "float"
  | "numeric"
  | "bpchar"
  | "char"
  | "bytea"
  | "json"
  | "date"
  | "time"
  | "timetz"
  | "timestamp"
  | "timestamptz"
  | "interval"
  | "vector";

/** A built-in type: its OID, its array type's OID (0: has none), its name, its form. OIDs below 10000 never change. */
export type BuiltinType = readonly [oid: number, array: number, name: string, form: BuiltinForm];

/**
 * Every base, range and multirange type of PostgreSQL 14 to 18; those of other versions and of users are looked up.
 * https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/catalog/pg_type.dat
 */
export const BUILTIN_TYPES: readonly BuiltinType[] = [
  [16, 1000, "bool", "boolean"],
  [17, 1001, "bytea", "bytea"],
  [18, 1002, "char", "char"],
  [19, 1003, "name", "text"],
  [20, 1016, "int8", "text"],
  [21, 1005, "int2", "number"],
  [22, 1006, "int2vector", "vector"],
  [23, 1007, "int4", "number"],
  [24, 1008, "regproc", "text"],
  [25, 1009, "text", "text"],
  [26, 1028, "oid", "number"],
  [27, 1010, "tid", "text"],
  [28, 1011, "xid", "text"],
  [29, 1012, "cid", "text"],
  [30, 1013, "oidvector", "vector"],
  [114, 199, "json", "json"],
  [142, 143, "xml", "text"],
  [194, 0, "pg_node_tree", "text"],
  [600, 1017, "point", "text"],
  [601, 1018, "lseg", "text"],
  [602, 1019, "path", "text"],
  [603, 1020, "box", "text"],
  [604, 1027, "polygon", "text"],
  [628, 629, "line", "text"],
  [650, 651, "cidr", "text"],
  [700, 1021, "float4", "float"],
  [701, 1022, "float8", "float"],
  [718, 719, "circle", "text"],
  [774, 775, "macaddr8", "text"],
  [790, 791, "money", "text"],
  [829, 1040, "macaddr", "text"],
  [869, 1041, "inet", "text"],
  [1033, 1034, "aclitem", "text"],
  [1042, 1014, "bpchar", "bpchar"],
  [1043, 1015, "varchar", "text"],
  [1082, 1182, "date", "date"],
  [1083, 1183, "time", "time"],
  [1114, 1115, "timestamp", "timestamp"],
  [1184, 1185, "timestamptz", "timestamptz"],
  [1186, 1187, "interval", "interval"],
  [1266, 1270, "timetz", "timetz"],
  [1560, 1561, "bit", "text"],
  [1562, 1563, "varbit", "text"],
  [1700, 1231, "numeric", "numeric"],
  [1790, 2201, "refcursor", "text"],
  [2202, 2207, "regprocedure", "text"],
  [2203, 2208, "regoper", "text"],
  [2204, 2209, "regoperator", "text"],
  [2205, 2210, "regclass", "text"],
  [2206, 2211, "regtype", "text"],
  [2950, 2951, "uuid", "text"],
  [2970, 2949, "txid_snapshot", "text"],
  [3220, 3221, "pg_lsn", "text"],
  [3361, 0, "pg_ndistinct", "text"],
  [3402, 0, "pg_dependencies", "text"],
  [3614, 3643, "tsvector", "text"],
  [3615, 3645, "tsquery", "text"],
  [3642, 3644, "gtsvector", "text"],
  [3734, 3735, "regconfig", "text"],
  [3769, 3770, "regdictionary", "text"],
  [3802, 3807, "jsonb", "json"],
  [3904, 3905, "int4range", "text"],
  [3906, 3907, "numrange", "text"],
  [3908, 3909, "tsrange", "text"],
  [3910, 3911, "tstzrange", "text"],
  [3912, 3913, "daterange", "text"],
  [3926, 3927, "int8range", "text"],
  [4072, 4073, "jsonpath", "text"],
  [4089, 4090, "regnamespace", "text"],
  [4096, 4097, "regrole", "text"],
  [4191, 4192, "regcollation", "text"],
  [4451, 6150, "int4multirange", "text"],
  [4532, 6151, "nummultirange", "text"],
  [4533, 6152, "tsmultirange", "text"],
  [4534, 6153, "tstzmultirange", "text"],
  [4535, 6155, "datemultirange", "text"],
  [4536, 6157, "int8multirange", "text"],
  [4600, 0, "pg_brin_bloom_summary", "text"],
  [4601, 0, "pg_brin_minmax_multi_summary", "text"],
  [5017, 0, "pg_mcv_list", "text"],
  [5038, 5039, "pg_snapshot", "text"],
  [5069, 271, "xid8", "text"],
];

/** The only built-in type whose array text is not delimited by a comma. */
export const BOX = 603;
