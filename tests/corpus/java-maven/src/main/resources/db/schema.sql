CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT NOT NULL, stock INTEGER NOT NULL, counted TEXT NOT NULL);
INSERT INTO part (name, stock, counted) VALUES ('Axle bearing', 12, '2024-02-29T23:30:00Z');
INSERT INTO part (name, stock, counted) VALUES ('Brake pad Ø80', 160, '2024-06-30T22:15:00Z');
INSERT INTO part (name, stock, counted) VALUES ('Coupling', 7, '2024-11-03T05:45:00Z');
