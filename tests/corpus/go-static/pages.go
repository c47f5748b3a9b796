package main

import (
	"net/http"
	"time"

	. "github.com/maragudk/gomponents"
	. "github.com/maragudk/gomponents/components"
	. "github.com/maragudk/gomponents/html"
)

// index renders the configured cities with what clocks show there.
func index(conf config) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var rows []Node
		for _, c := range conf.Cities {
			zone, err := time.LoadLocation(c.Zone)
			if err != nil {
				fail(w, http.StatusInternalServerError, err.Error())
				return
			}
			now := time.Now().In(zone)
			rows = append(rows, Tr(
				Td(Text(c.Name)),
				Td(A(Href("/time/"+c.Zone), Text(c.Zone))),
				Td(Class("clock"), Text(now.Format("15:04 -07:00"))),
			))
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		HTML5(HTML5Props{
			Title:    conf.Title,
			Language: "en",
			Head:     []Node{StyleEl(Raw(stylesheet))},
			Body:     []Node{H1(Text(conf.Title)), Table(Group(rows))},
		}).Render(w)
	}
}
