package claim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// Holder is who holds a claim, or wants to.
type Holder struct {
	Unit       string    `json:"unit"`    // empty for nobody
	Version    string    `json:"version"` // empty for who downloads nothing
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"` // by the holder's clock: for people only
	Generation int       `json:"generation"`
}

// lockOf is what the log calls the claim: people know it as a lock.
func lockOf(h Holder) string {
	if h.Version == "" {
		return "the download lock"
	}
	return "the download lock for v" + h.Version
}

func unitName(h Holder) string { return cmp.Or(h.Unit, "an unknown unit") }

// Read returns whom the file Log.Name names: the holder, or who held the claim
// when it died. A file that is missing or half written is an error.
func Read(root *os.Root, name string) (h Holder, err error) {
	data, err := durable.ReadFile(root, name)
	if err == nil {
		// A decoder stops after one value: the tail of a longer, older one may follow.
		err = json.NewDecoder(bytes.NewReader(data)).Decode(&h)
	}
	if err != nil {
		return Holder{}, fmt.Errorf("cannot read the holder: %w", err)
	}
	return h, nil
}

// writeName names a holder, in place: whoever locks the file would have another lock in
// another file. That it fails is no reason to give up, since it is for people.
func writeName(root *os.Root, name string, h Holder) {
	if data, err := json.Marshal(h); err == nil {
		durable.Write(root, name, append(data, '\n'))
	}
}

// removeName takes a holder out of the file, unless that names another one: the logs
// of several versions may share it.
func removeName(root *os.Root, name string, h Holder) {
	named, err := Read(root, name)
	if err == nil && named.Version == h.Version && named.Generation == h.Generation && named.Unit == h.Unit {
		writeName(root, name, Holder{Version: h.Version, Generation: h.Generation})
	}
}
