SELECT * EXCEPT (data_type),
    CASE
        WHEN data_type IN ('Utf8', 'LargeUtf8', 'Utf8View') THEN 'text'
        WHEN data_type IN ('Int64', 'UInt32') THEN 'bigint'
        WHEN data_type IN ('Int32', 'UInt16') THEN 'integer'
        WHEN data_type IN ('Int16', 'Int8', 'UInt8') THEN 'smallint'
        WHEN data_type = 'Float64' THEN 'double precision'
        WHEN data_type = 'Float32' THEN 'real'
        WHEN data_type = 'Boolean' THEN 'boolean'
        WHEN data_type = 'Date32' THEN 'date'
        WHEN data_type LIKE 'Timestamp%UTC%' THEN 'timestamp with time zone'
        WHEN data_type LIKE 'Timestamp%' THEN 'timestamp without time zone'
        WHEN data_type LIKE '%Binary%' THEN 'bytea'
        WHEN data_type LIKE 'Decimal%' OR data_type = 'UInt64' THEN 'numeric'
        WHEN data_type LIKE 'List%' THEN 'ARRAY'
        ELSE lower(data_type)
    END AS data_type
FROM information_schema.columns
