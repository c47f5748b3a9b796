// Command worldclock tells the time anywhere on earth.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"
	"gopkg.in/yaml.v3"
)

type city struct {
	Name string `yaml:"name"`
	Zone string `yaml:"zone"`
}

type config struct {
	Listen string `yaml:"listen"`
	Title  string `yaml:"title"`
	Cities []city `yaml:"cities"`
}

func readConfig(path string) (config, error) {
	var c config
	text, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	err = yaml.Unmarshal(text, &c)
	return c, err
}

func main() {
	path := flag.String("config", "worldclock.yaml", "configuration file")
	flag.Parse()

	logger, err := zap.NewProduction()
	if err != nil {
		log.Fatal(err)
	}
	defer logger.Sync()

	conf, err := readConfig(*path)
	if err != nil {
		logger.Fatal("configuration", zap.Error(err))
	}
	visits, err := openVisits()
	if err != nil {
		logger.Fatal("visit store", zap.Error(err))
	}
	defer visits.Close()

	server := &http.Server{
		Addr:              conf.Listen,
		Handler:           routes(conf, visits, logger),
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

	logger.Info("listening", zap.String("address", conf.Listen))
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		logger.Fatal("server", zap.Error(err))
	}
}
