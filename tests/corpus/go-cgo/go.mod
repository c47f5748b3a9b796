module example.com/library

go 1.19

require (
	github.com/gorilla/mux v1.8.0
	github.com/mattn/go-sqlite3 v1.14.22
	golang.org/x/crypto v0.17.0
	golang.org/x/text v0.14.0
)
