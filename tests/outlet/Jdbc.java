// What a tool on the PostgreSQL JDBC driver does with the endpoint. One line "name: value" for each thing asked.
// Run by test_sql_clients.py: java -cp postgresql.jar Jdbc.java jdbc:postgresql://…

import java.sql.*;
import java.util.*;

public class Jdbc {
    static void say(String name, Object value) {
        System.out.println(name + ": " + value);
    }

    static List<String> column(ResultSet rows, String... names) throws SQLException {
        List<String> found = new ArrayList<>();
        while (rows.next()) {
            List<String> parts = new ArrayList<>();
            for (String name : names) parts.add(rows.getString(name));
            found.add(String.join(" ", parts));
        }
        return found;
    }

    /** The rest of what Metabase and DBeaver ask the driver, then their own questions out of a file. */
    static void tools(Connection connection, DatabaseMetaData meta, String file) throws Exception {
        say("keywords", meta.getSQLKeywords().length() >= 0);
        say("exported", column(meta.getExportedKeys(null, "silver", "features"), "FKTABLE_NAME"));
        say("cross", column(meta.getCrossReference(null, "silver", "features", null, "raw", "vibration"), "FKTABLE_NAME"));
        say("procedures", column(meta.getProcedures(null, "silver", "%"), "PROCEDURE_NAME"));
        say("privileges", column(meta.getTablePrivileges(null, "silver", "features"), "PRIVILEGE"));
        say("columnPrivileges", column(meta.getColumnPrivileges(null, "silver", "features", "%"), "PRIVILEGE").size() >= 0);
        say("best", column(meta.getBestRowIdentifier(null, "silver", "features", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"));
        say("versions", column(meta.getVersionColumns(null, "silver", "features"), "COLUMN_NAME").size() >= 0);
        say("tableTypes", column(meta.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
        say("udts", column(meta.getUDTs(null, null, "%", null), "TYPE_NAME"));
        say("everyTable", column(meta.getTables(null, null, "%", new String[] {"TABLE", "PARTITIONED TABLE", "VIEW",
            "FOREIGN TABLE", "MATERIALIZED VIEW"}), "TABLE_SCHEM", "TABLE_NAME"));
        say("someSchemas", column(meta.getSchemas("boucle", "sil%"), "TABLE_SCHEM"));
        say("client", column(meta.getClientInfoProperties(), "NAME").contains("ApplicationName"));
        connection.setClientInfo("ApplicationName", "tool");
        connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        say("isolation", connection.getTransactionIsolation() >= Connection.TRANSACTION_READ_COMMITTED);
        say("schema", connection.getSchema());
        List<String> wrong = new ArrayList<>();
        int asked = 0;
        for (String line : java.nio.file.Files.readString(java.nio.file.Path.of(file)).split("\u001e")) {
            String[] parts = line.split("\u001f");  // name, least rows, statement
            asked++;
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(parts[2])) {
                int count = 0, width = rows.getMetaData().getColumnCount();
                while (rows.next()) {
                    for (int index = 1; index <= width; index++) rows.getObject(index);
                    count++;
                }
                if (count < Integer.parseInt(parts[1])) wrong.add(parts[0] + ": " + count + " rows");
            } catch (SQLException refused) {
                wrong.add(parts[0] + ": " + refused.getMessage());
            }
        }
        say("asked", asked);
        say("wrong", wrong);
    }

    public static void main(String[] words) throws Exception {
        try (Connection connection = DriverManager.getConnection(words[0], words[1], words[2])) {
            DatabaseMetaData meta = connection.getMetaData();
            say("product", meta.getDatabaseProductName());
            say("catalogs", column(meta.getCatalogs(), "TABLE_CAT"));
            say("schemas", column(meta.getSchemas(), "TABLE_SCHEM"));
            say("tables", column(meta.getTables(null, "silver", "%", new String[] {"TABLE"}), "TABLE_NAME", "REMARKS"));
            say("columns", column(meta.getColumns(null, "silver", "features", "%"), "COLUMN_NAME", "TYPE_NAME", "IS_NULLABLE"));
            say("keys", column(meta.getPrimaryKeys(null, "silver", "features"), "COLUMN_NAME", "KEY_SEQ"));
            say("indexes", column(meta.getIndexInfo(null, "silver", "features", false, false), "INDEX_NAME", "COLUMN_NAME"));
            say("imported", column(meta.getImportedKeys(null, "silver", "features"), "FKTABLE_NAME"));
            say("types", column(meta.getTypeInfo(), "TYPE_NAME").contains("timestamptz"));
            if (words.length > 3) tools(connection, meta, words[3]);
            say("functions", column(meta.getFunctions(null, null, "%"), "FUNCTION_NAME").size() >= 0);
            try (PreparedStatement statement = connection.prepareStatement(
                    "select machine, at, value, 7::bigint, 12.50::decimal(8,2), true, date '2026-01-02', samples"
                    + " from features where value > ? and machine = ? order by at limit ?")) {
                for (int round = 0; round < 8; round++) {  // binary after the fifth
                    statement.setDouble(1, 0.5);
                    statement.setString(2, "press-1");
                    statement.setInt(3, 1);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        say("round" + round, rows.getString(1) + " " + rows.getTimestamp(2).toInstant() + " "
                            + rows.getDouble(3) + " " + rows.getLong(4) + " " + rows.getBigDecimal(5) + " "
                            + rows.getBoolean(6) + " " + rows.getDate(7) + " "
                            + Arrays.toString((Object[]) rows.getArray(8).getArray()));
                    }
                }
            }
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(1000);
                long sum = 0, count = 0;
                try (ResultSet rows = statement.executeQuery("select i from range(100000) t(i)")) {
                    while (rows.next()) {
                        sum += rows.getLong(1);
                        count++;
                    }
                }
                say("fetched", count + " " + sum);
            }
            connection.commit();
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("select nope from features");
            } catch (SQLException refused) {
                say("refused", refused.getSQLState());
            }
            connection.rollback();
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("select count(*) from range(100000000) a, range(100000) b where a.range * b.range = 7");
            } catch (SQLException refused) {
                say("timeout", refused.getSQLState());
            }
            connection.rollback();
            connection.setReadOnly(true);
            connection.setAutoCommit(true);
            try (ResultSet rows = connection.createStatement().executeQuery("select 1")) {
                rows.next();
                say("after", rows.getInt(1) + " " + connection.isValid(5));
            }
        }
    }
}
