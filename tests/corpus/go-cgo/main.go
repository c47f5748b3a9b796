// Command library serves a catalogue of books out of SQLite.
package main

import (
	"context"
	"database/sql"
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"syscall"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// migrate applies every file of the schema folder in the order of their names.
func migrate(db *sql.DB, folder string) error {
	scripts, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil {
		return err
	}
	if len(scripts) == 0 {
		return errors.New("no schema in " + folder)
	}
	sort.Strings(scripts)
	for _, script := range scripts {
		statements, err := os.ReadFile(script)
		if err != nil {
			return err
		}
		if _, err := db.Exec(string(statements)); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	home := setting("LIBRARY_HOME", ".")
	db, err := sql.Open("sqlite3", setting("LIBRARY_DB", "/var/lib/library/books.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := migrate(db, filepath.Join(home, "schema")); err != nil {
		log.Fatal("schema: ", err)
	}
	pages, err := template.ParseGlob(filepath.Join(home, "templates", "*.html"))
	if err != nil {
		log.Fatal("templates: ", err)
	}

	server := &http.Server{
		Addr:              ":" + setting("PORT", "18141"),
		Handler:           (&library{db, pages}).routes(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	go func() {
		<-stop.Done()
		grace, done := context.WithTimeout(context.Background(), 3*time.Second)
		defer done()
		server.Shutdown(grace)
	}()
	log.Print("listening on ", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
