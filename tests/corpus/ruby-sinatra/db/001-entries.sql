CREATE TABLE entry (id INTEGER PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, written TEXT NOT NULL);
INSERT INTO entry (name, text, written) VALUES ('Åshild', 'Warm & dry, even in <rain>.', '2024-03-31T00:30:00Z');
INSERT INTO entry (name, text, written) VALUES ('Jürgen', 'The lamp smokes.', '2024-10-27T01:15:00Z');
