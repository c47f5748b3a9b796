package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestTimeAt(t *testing.T) {
	visits, err := openVisits()
	if err != nil {
		t.Fatal(err)
	}
	defer visits.Close()
	w := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "/time/Asia/Kathmandu?at=2024-01-01T00:00:00Z", nil)
	routes(config{}, visits, zap.NewNop()).ServeHTTP(w, request)
	if body := w.Body.String(); !strings.Contains(body, "2024-01-01T05:45:00+05:45") {
		t.Fatal(body)
	}
}
