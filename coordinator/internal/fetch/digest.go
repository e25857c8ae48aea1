package fetch

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Digest is what an archive's bytes must add up to. The zero value matches
// nothing.
type Digest struct {
	Algorithm string // "sha256" or "sha1"
	Hex       string // lower case
}

// ParseDigest reads "sha256:HEX" or "sha1:HEX".
func ParseDigest(s string) (Digest, error) {
	algorithm, sum, _ := strings.Cut(s, ":")
	d := Digest{Algorithm: algorithm, Hex: strings.ToLower(sum)}
	raw, err := hex.DecodeString(d.Hex)
	if err != nil || (algorithm != "sha256" && algorithm != "sha1") || len(raw) != d.New().Size() {
		return Digest{}, fmt.Errorf("%q is no digest of the form sha256:HEX", s)
	}
	return d, nil
}

// New returns the hash that computes such a digest.
func (d Digest) New() hash.Hash {
	if d.Algorithm == "sha1" {
		return sha1.New()
	}
	return sha256.New()
}

func (d Digest) String() string { return d.Algorithm + ":" + d.Hex }
