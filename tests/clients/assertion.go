// Command assertion authenticates with private_key_jwt by golang-jwt, which writes the audience as an
// array of one. Without a URL it writes a new key to a file and prints its key set.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/golang-jwt/jwt"
)

func main() {
	if len(os.Args) == 2 {
		makeKey(os.Args[1])
		return
	}
	file, client, issuer := os.Args[1], os.Args[2], os.Args[3]
	text, err := os.ReadFile(file)
	check(err)
	key, err := jwt.ParseRSAPrivateKeyFromPEM(text)
	check(err)
	now := time.Now()
	for index := 0; index < 3; index++ {
		claims := jwt.RegisteredClaims{
			Issuer:    client,
			Subject:   client,
			Audience:  jwt.ClaimStrings{issuer},
			ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)),
			IssuedAt:  jwt.NewNumericDate(now),
			ID:        fmt.Sprintf("%d-%d", now.UnixNano(), index),
		}
		if index == 1 {
			claims.IssuedAt = nil
			claims.ExpiresAt = jwt.NewNumericDate(now.Add(5*time.Minute + 5*time.Second))
		}
		if index == 2 {
			claims.NotBefore = jwt.NewNumericDate(now)
		}
		assertion, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
		check(err)
		answer, err := http.PostForm(issuer+"/connect/token", url.Values{
			"grant_type":            {"client_credentials"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion},
		})
		check(err)
		body, err := io.ReadAll(answer.Body)
		check(err)
		if answer.StatusCode != 200 {
			log.Fatalf("%d: %s", answer.StatusCode, body)
		}
		fmt.Println(answer.StatusCode)
	}
}

func makeKey(file string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(err)
	block := pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	check(os.WriteFile(file, pem.EncodeToMemory(&block), 0o600))
	encode := base64.RawURLEncoding.EncodeToString
	n, e := encode(key.N.Bytes()), encode(big.NewInt(int64(key.E)).Bytes())
	fmt.Printf("{\"keys\":[{\"kty\":\"RSA\",\"n\":%q,\"e\":%q}]}\n", n, e)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
