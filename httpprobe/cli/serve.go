// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"net/http"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/sys/scrape"
)

// serve answers Prometheus until the returned function is called, each within a time. failed is
// called if that ends sooner.
func serve(l net.Listener, figures http.Handler, within time.Duration, failed func(error)) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", figures)
	s := scrape.Server(mux, within)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != http.ErrServerClosed {
			failed(err)
		}
	}()
	return func() {
		s.Close()
		<-done
	}
}
