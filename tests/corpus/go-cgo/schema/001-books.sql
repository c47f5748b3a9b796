CREATE TABLE IF NOT EXISTS book (
    id     INTEGER PRIMARY KEY,
    title  TEXT NOT NULL UNIQUE,
    author TEXT NOT NULL,
    year   INTEGER NOT NULL
);

INSERT OR IGNORE INTO book (title, author, year) VALUES
    ('Ørneflukt', 'Åse Lie', 1971),
    ('Zeit und Ort', 'Änne Zuckmayer', 1958),
    ('The Left Hand', 'Ursula Kroeber', 1969),
    ('Ensayos', 'Álvaro Núñez', 1988);
