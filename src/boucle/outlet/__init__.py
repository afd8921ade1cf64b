"""The interfaces of a data product: SQL on PostgreSQL's protocol, Arrow Flight SQL, REST, files and events."""
