package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// stranger answers one TLS handshake on loopback with a certificate that nobody vouches for.
func stranger() (net.Listener, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		return nil, err
	}
	chain := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{chain}})
	if err != nil {
		return nil, err
	}
	go func() {
		if connection, err := listener.Accept(); err == nil {
			connection.(*tls.Conn).Handshake()
			connection.Close()
		}
	}()
	return listener, nil
}

// trust reports the system's certificate authorities and proves that a stranger's certificate is refused.
func trust(w http.ResponseWriter, _ *http.Request) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	roots := pool.Subjects() //nolint:staticcheck // complete on Linux once the pool has been loaded
	isrg := false
	for _, subject := range roots {
		isrg = isrg || strings.Contains(string(subject), "ISRG Root X1")
	}

	listener, err := stranger()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer listener.Close()
	connection, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: pool})
	if err == nil {
		connection.Close()
	}
	var unknown x509.UnknownAuthorityError
	answer(w, http.StatusOK, map[string]any{
		"enough_roots": len(roots) > 100, "isrg_root_x1": isrg, "stranger_refused": errors.As(err, &unknown),
	})
}
