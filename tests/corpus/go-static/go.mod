module example.com/worldclock

go 1.19

require (
	github.com/go-chi/chi/v5 v5.0.10
	github.com/maragudk/gomponents v0.20.1
	go.etcd.io/bbolt v1.3.7
	go.uber.org/zap v1.24.0
	gopkg.in/yaml.v3 v3.0.1
)

require (
	go.uber.org/atomic v1.7.0 // indirect
	go.uber.org/multierr v1.6.0 // indirect
	golang.org/x/sys v0.4.0 // indirect
)
