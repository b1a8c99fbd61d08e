// Serves a Mercure hub for the load tool: streams over TLS on one address, publishing without it on another, and,
// where clients are to come back, a history in a file. The hub is the module's own; only the listeners are ours.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/dunglas/mercure"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where streams are served")
	publish := flag.String("publish", "127.0.0.1:0", "where updates are posted")
	history := flag.String("history", "", "the file of a history; without it there is none")
	cert := flag.String("cert", "", "the certificate's chain; without it there is no TLS")
	key := flag.String("key", "", "the certificate's key")
	flag.Parse()

	stop, done := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer done()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	transport, err := transport(*history, logger)
	if err != nil {
		log.Fatal(err)
	}
	hub, err := mercure.NewHub(stop,
		mercure.WithAnonymous(),
		mercure.WithPublisherJWT([]byte(tokenKey), "HS256"),
		mercure.WithTransport(transport),
		mercure.WithLogger(logger),
		// No stream is to end by itself while it is measured.
		mercure.WithWriteTimeout(0),
	)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.ListenAndServe(*publish, hub)) }()
	go func() {
		if *cert == "" {
			log.Fatal(http.ListenAndServe(*listen, hub))
		}
		log.Fatal(http.ListenAndServeTLS(*listen, *cert, *key, hub))
	}()
	<-stop.Done()
}

// The newest thousand updates, as with the other servers, where there is to be a history.
func transport(history string, logger *slog.Logger) (mercure.Transport, error) {
	subscribers := mercure.NewSubscriberList(mercure.DefaultSubscriberListCacheSize)
	if history == "" {
		return mercure.NewLocalTransport(subscribers), nil
	}
	return mercure.NewBoltTransport(subscribers, logger, history, "updates", 1000, mercure.BoltDefaultCleanupFrequency)
}

// The token in the load tool is signed with this.
const tokenKey = "ssegate-load measures this hub alone, on loopback"
