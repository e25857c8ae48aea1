package fetch

import (
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding"
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
	h := newSums(d)[algorithm]
	raw, err := hex.DecodeString(d.Hex)
	if err != nil || h == nil || len(raw) != h.Size() {
		return Digest{}, fmt.Errorf("%q is no digest of the form sha256:HEX", s)
	}
	return d, nil
}

func (d Digest) String() string { return d.Algorithm + ":" + d.Hex }

// sums are the running digests of an archive, by algorithm: sha256 always, and
// the one that is expected.
type sums map[string]hash.Hash

func newSums(want Digest) sums {
	s := sums{"sha256": sha256.New()}
	if want.Algorithm == "sha1" {
		s["sha1"] = sha1.New()
	}
	return s
}

// restore sets the digests to what an earlier attempt has kept of them. It fails
// if that came from another version of this program.
func (s sums) restore(states map[string][]byte) (err error) {
	for algorithm, h := range s {
		err = cmp.Or(err, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(states[algorithm]))
	}
	return err
}

// states are what restore takes. What could not be kept would be hashed again.
func (s sums) states() map[string][]byte {
	states := map[string][]byte{}
	for algorithm, h := range s {
		states[algorithm], _ = h.(encoding.BinaryMarshaler).MarshalBinary()
	}
	return states
}

func (s sums) hex() map[string]string {
	text := map[string]string{}
	for algorithm, h := range s {
		text[algorithm] = hex.EncodeToString(h.Sum(nil))
	}
	return text
}
