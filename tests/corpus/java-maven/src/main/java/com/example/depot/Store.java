package com.example.depot;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** The parts, in an SQLite database in memory; its native library comes out of the jar. */
final class Store implements AutoCloseable {
    private final Connection connection;

    Store() throws SQLException {
        connection = DriverManager.getConnection("jdbc:sqlite::memory:");
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate(schema());
        }
    }

    private static String schema() {
        try (InputStream script = Store.class.getResourceAsStream("/db/schema.sql")) {
            return new String(script.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Part part(ResultSet row) throws SQLException {
        return new Part(row.getLong("id"), row.getString("name"), row.getInt("stock"),
                Instant.parse(row.getString("counted")));
    }

    synchronized List<Part> all() throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("SELECT * FROM part ORDER BY id")) {
            List<Part> parts = new ArrayList<>();
            while (rows.next()) {
                parts.add(part(rows));
            }
            return parts;
        }
    }

    synchronized Optional<Part> find(long id) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM part WHERE id = ?")) {
            statement.setLong(1, id);
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? Optional.of(part(rows)) : Optional.empty();
            }
        }
    }

    synchronized String version() throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("SELECT sqlite_version()")) {
            rows.next();
            return rows.getString(1);
        }
    }

    @Override
    public void close() throws SQLException {
        connection.close();
    }
}
