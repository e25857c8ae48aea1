package fetch

import (
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// hashedAtOnce bounds what is read back for the digests at a time.
const hashedAtOnce = 1 << 20

// sums are the running digests of an archive, by algorithm: sha256 always, and
// the one that is expected.
type sums map[string]hash.Hash

func newSums(want Digest) sums {
	s := sums{"sha256": Digest{Algorithm: "sha256"}.New()}
	if want.Algorithm == "sha1" {
		s["sha1"] = want.New()
	}
	return s
}

// restore sets the digests to what an earlier attempt has kept of them. It fails
// if that came from another version of this program; then they start anew.
func (s sums) restore(states map[string][]byte) bool {
	for algorithm, h := range s {
		if h.(encoding.BinaryUnmarshaler).UnmarshalBinary(states[algorithm]) != nil {
			for _, h := range s {
				h.Reset()
			}
			return false
		}
	}
	return true
}

func (s sums) states() (map[string][]byte, error) {
	states := map[string][]byte{}
	for algorithm, h := range s {
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("cannot keep the state of the digest: %w", err)
		}
		states[algorithm] = state
	}
	return states, nil
}

func (s sums) hex() map[string]string {
	text := map[string]string{}
	for algorithm, h := range s {
		text[algorithm] = hex.EncodeToString(h.Sum(nil))
	}
	return text
}

// follow hashes what r reads until its end, and calls hashed after each piece.
func (s sums) follow(r io.Reader, hashed func(n int) error) error {
	buf := make([]byte, hashedAtOnce)
	for {
		n, err := r.Read(buf)
		for _, h := range s {
			h.Write(buf[:n])
		}
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = hashed(n)
		}
		if err != nil {
			return err
		}
	}
}
