CREATE VIRTUAL TABLE IF NOT EXISTS book_text USING fts5 (title, author, content = 'book', content_rowid = 'id');

INSERT INTO book_text (book_text) VALUES ('rebuild');
