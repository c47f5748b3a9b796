package main

import (
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net"
	"net/http"
	"os/user"
	"sort"

	"github.com/gorilla/mux"
	"github.com/mattn/go-sqlite3"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/collate"
	"golang.org/x/text/language"
)

type book struct {
	ID     int64  `json:"id"`
	Title  string `json:"title"`
	Author string `json:"author"`
	Year   int    `json:"year"`
}

type library struct {
	db    *sql.DB
	pages *template.Template
}

func (l *library) routes() http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/", l.page)
	r.HandleFunc("/books/{id:[0-9]+}", l.one)
	r.HandleFunc("/search", l.search)
	r.HandleFunc("/about", l.about)
	r.HandleFunc("/resolve/{host}", resolve)
	r.HandleFunc("/password/{word}", password)
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusNotFound, map[string]string{"error": "nothing at " + r.URL.Path})
	})
	return r
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func broken(w http.ResponseWriter, err error) {
	log.Print(err)
	answer(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
}

func (l *library) books(query string, arguments ...any) ([]book, error) {
	rows, err := l.db.Query(query, arguments...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := []book{}
	for rows.Next() {
		var b book
		if err := rows.Scan(&b.ID, &b.Title, &b.Author, &b.Year); err != nil {
			return nil, err
		}
		found = append(found, b)
	}
	return found, rows.Err()
}

// page lists all books, sorted by author as a Danish reader expects, or in the ?lang= asked for.
func (l *library) page(w http.ResponseWriter, r *http.Request) {
	books, err := l.books("SELECT id, title, author, year FROM book")
	if err != nil {
		broken(w, err)
		return
	}
	tag, err := language.Parse(r.URL.Query().Get("lang"))
	if err != nil {
		tag = language.Danish
	}
	order := collate.New(tag)
	sort.Slice(books, func(i, j int) bool { return order.CompareString(books[i].Author, books[j].Author) < 0 })
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := l.pages.ExecuteTemplate(w, "books.html", map[string]any{"Books": books}); err != nil {
		log.Print(err)
	}
}

func (l *library) one(w http.ResponseWriter, r *http.Request) {
	books, err := l.books("SELECT id, title, author, year FROM book WHERE id = ?", mux.Vars(r)["id"])
	switch {
	case err != nil:
		broken(w, err)
	case len(books) == 0:
		answer(w, http.StatusNotFound, map[string]string{"error": "no such book"})
	default:
		answer(w, http.StatusOK, books[0])
	}
}

func (l *library) search(w http.ResponseWriter, r *http.Request) {
	books, err := l.books(`SELECT book.id, book.title, book.author, book.year FROM book_text
		JOIN book ON book.id = book_text.rowid WHERE book_text MATCH ? ORDER BY rank`, r.URL.Query().Get("q"))
	if err != nil {
		broken(w, err)
		return
	}
	answer(w, http.StatusOK, books)
}

// about tells who runs the service (by the C library's lookup), on which SQLite, and what TLS clients trust.
func (l *library) about(w http.ResponseWriter, _ *http.Request) {
	me, err := user.Current()
	if err != nil {
		broken(w, err)
		return
	}
	account, err := user.Lookup(me.Username)
	if err != nil {
		broken(w, err)
		return
	}
	version, _, _ := sqlite3.Version()
	roots, err := x509.SystemCertPool()
	if err != nil {
		broken(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"user": account.Username, "home": account.HomeDir, "gecos": account.Name, "sqlite": version,
		"trusts_authorities": !roots.Equal(x509.NewCertPool()),
	})
}

func resolve(w http.ResponseWriter, r *http.Request) {
	addresses, err := net.DefaultResolver.LookupHost(r.Context(), mux.Vars(r)["host"])
	if err != nil {
		answer(w, http.StatusNotFound, map[string]string{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, addresses)
}

// password hashes a word and checks it against its hash and against another.
func password(w http.ResponseWriter, r *http.Request) {
	word := []byte(mux.Vars(r)["word"])
	hash, err := bcrypt.GenerateFromPassword(word, bcrypt.MinCost)
	if err != nil {
		broken(w, err)
		return
	}
	wrong := bcrypt.CompareHashAndPassword(hash, append(word, '!'))
	answer(w, http.StatusOK, map[string]bool{
		"right": bcrypt.CompareHashAndPassword(hash, word) == nil,
		"wrong": !errors.Is(wrong, bcrypt.ErrMismatchedHashAndPassword),
	})
}
