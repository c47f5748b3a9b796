package main

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"os/user"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.uber.org/zap"
)

//go:embed style.css
var stylesheet string

func routes(conf config, visits *visitStore, logger *zap.Logger) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer, accessLog(logger))
	r.Get("/", index(conf))
	r.Get("/time/*", timeAt)
	r.Get("/trust", trust)
	r.Get("/user/{name}", lookupUser)
	r.Get("/visits/{key}", visits.count)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "no such page: "+r.URL.Path)
	})
	return r
}

func accessLog(logger *zap.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begin := time.Now()
			ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
			next.ServeHTTP(ww, r)
			logger.Info("request", zap.String("path", r.URL.Path), zap.Int("status", ww.Status()),
				zap.Duration("took", time.Since(begin)))
		})
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": message})
}

// timeAt answers with an instant (now, or ?at= in RFC 3339) as clocks in the named zone show it.
func timeAt(w http.ResponseWriter, r *http.Request) {
	instant := time.Now()
	if at := r.URL.Query().Get("at"); at != "" {
		parsed, err := time.Parse(time.RFC3339, at)
		if err != nil {
			fail(w, http.StatusBadRequest, err.Error())
			return
		}
		instant = parsed
	}
	zone, err := time.LoadLocation(chi.URLParam(r, "*"))
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	local := instant.In(zone)
	abbreviation, _ := local.Zone()
	answer(w, http.StatusOK, map[string]any{
		"zone": zone.String(), "local": local.Format(time.RFC3339), "abbreviation": abbreviation, "dst": local.IsDST(),
	})
}

func lookupUser(w http.ResponseWriter, r *http.Request) {
	found, err := user.Lookup(chi.URLParam(r, "name"))
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	groups, err := found.GroupIds()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]any{"uid": found.Uid, "home": found.HomeDir, "groups": groups})
}
