// Package history tells whether what was seen of a volume, look after look, is what the
// protocol of its units allows. The rules are those of the model of the protocol, which is
// explored in all its states. What happens between two looks is told by what the volume
// keeps: the log of activations, the newest claims of each version, and the numbers of the
// entries in the store.
package history

import (
	"strconv"
	"strings"
)

// Volume is what one look at a volume shows.
type Volume struct {
	// ID is that of the volume; empty if none is there.
	ID string `json:"volume_id"`
	// Activations are in the order of their numbers. One that cannot be read has no version.
	Activations []Activation `json:"activations"`
	// Claims are those that are still in the logs, by version, in the order of their
	// generations.
	Claims map[string][]Claim `json:"claims"`
	// Releases are the entries of the store that the releases lead to, by version. On a
	// volume of the first layout that is generation 0.
	Releases map[string]string `json:"releases"`
	// Entries are those in the store, such as "7.14.3.1".
	Entries []string `json:"entries"`
	// Staged are the names below staging/.
	Staged []string `json:"staged"`
	// Pins are the entries that units have pinned, by unit as a file name. What a call
	// holds is not there.
	Pins map[string]string `json:"pins"`

	// Look does not find out the rest.

	// Publishers are the units that installed a release, by entry, as far as it is known.
	Publishers map[string]string `json:"publishers,omitempty"`
	// Torn are versions whose releases are incomplete.
	Torn []string `json:"torn,omitempty"`
	// Damaged tells that somebody else than the units may have damaged releases.
	Damaged bool `json:"damaged,omitempty"`
}

// Activation is an entry of the log of activations.
type Activation struct {
	Number  int    `json:"generation"`
	Version string `json:"version"`
	Unit    string `json:"unit"`
}

// Claim is a generation in the log of a version's claims. One that was made while the
// volume was full has no unit and no nonce.
type Claim struct {
	Generation int    `json:"generation"`
	Unit       string `json:"unit"`
	Nonce      string `json:"nonce"`
	Ended      bool   `json:"ended"` // its holder has given it up
}

// entry is one download of a release: VERSION.GENERATION.
type entry struct {
	version    string
	generation int
}

func (e entry) String() string { return e.version + "." + strconv.Itoa(e.generation) }

// parseEntry reads the name of an entry; another name is an entry of no version.
func parseEntry(name string) entry {
	dot := strings.LastIndexByte(name, '.')
	if dot < 1 {
		return entry{}
	}
	n, ok := parseNumber(name[dot+1:])
	if !ok && name[dot+1:] != "0" {
		return entry{}
	}
	return entry{name[:dot], n}
}

// parseNumber reads the name of a claim or of an activation.
func parseNumber(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n > 0 && strconv.Itoa(n) == name
}

// newest returns the newest generation of a version; 0 if there is none.
func (v Volume) newest(version string) int {
	all := v.Claims[version]
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Generation
}

func (v Volume) claim(e entry) (Claim, bool) {
	for _, c := range v.Claims[e.version] {
		if c.Generation == e.generation {
			return c, true
		}
	}
	return Claim{}, false
}

// kept returns the versions that are current and were before. They are empty where the
// log does not say.
func (v Volume) kept() (current, previous string) {
	for i := len(v.Activations) - 1; i >= 0; i-- {
		switch version := v.Activations[i].Version; {
		case version == "":
		case current == "":
			current = version
		case version != current:
			return current, version
		}
	}
	return current, ""
}

// stages tells whether anything is staged for an entry.
func (v Volume) stages(e entry) bool {
	for _, name := range v.Staged {
		if strings.HasPrefix(name, e.String()+".") {
			return true
		}
	}
	return false
}
