package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// newKeys are those of an application. They follow from a number, and they are of a kind
// that is quickly parsed: the charm parses them in every hook of a leader.
func newKeys(number int) concourse.Keys {
	private := func(what string) string {
		seed := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, number))
		der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
		if err != nil {
			panic(err) // of a key that was made right here
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return concourse.Keys{HostKey: private("host"), SigningKey: private("signing"), AdminPassword: "admin"}
}
