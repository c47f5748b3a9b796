package main

import (
	"encoding/binary"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/go-chi/chi/v5"
	"go.etcd.io/bbolt"
)

// visitStore counts visits by key in a bbolt file below the temporary folder.
type visitStore struct {
	folder string
	db     *bbolt.DB
}

func openVisits() (*visitStore, error) {
	folder, err := os.MkdirTemp("", "worldclock-")
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(folder, "visits.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, err
	}
	return &visitStore{folder, db}, nil
}

func (s *visitStore) Close() {
	s.db.Close()
	os.RemoveAll(s.folder)
}

func (s *visitStore) count(w http.ResponseWriter, r *http.Request) {
	key := []byte(chi.URLParam(r, "key"))
	var total uint64
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte("visits"))
		if err != nil {
			return err
		}
		if old := bucket.Get(key); old != nil {
			total = binary.BigEndian.Uint64(old)
		}
		total++
		return bucket.Put(key, binary.BigEndian.AppendUint64(nil, total))
	})
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]any{"key": string(key), "positive": total > 0})
}
