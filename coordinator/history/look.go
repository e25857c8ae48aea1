package history

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// attempts is how often Look begins anew, because names change while it reads. Units
// change the names that matter for that a few times in an upgrade.
const attempts = 50

// Look reads the volume at root. It changes nothing. What is not there yet is no error.
func Look(root string) (Volume, error) {
	in, err := os.OpenRoot(root)
	if err != nil {
		return Volume{}, fmt.Errorf("cannot look at the history of a volume: %w", err)
	}
	defer in.Close()
	r := reader{root: in}
	for range attempts {
		v := r.look()
		if r.err != nil {
			return Volume{}, fmt.Errorf("cannot look at the history of %s: %w", root, r.err)
		}
		// What did not change was so all the time: a number is used once.
		if again := r.still(); r.err == nil && again.equals(v) {
			return v, nil
		}
	}
	return Volume{}, fmt.Errorf("cannot look at the history of %s: it changes all the time", root)
}

// reader reads until the first error.
type reader struct {
	root *os.Root
	err  error
}

// look reads in an order on which the rules rely: that a claim has ended before the
// entries are listed, what is staged before the entries, too, and which claims there are
// after that.
func (r *reader) look() Volume {
	v := r.still()
	var known struct{ ID string }
	if json.Unmarshal(r.file("volume.json"), &known) == nil {
		v.ID = known.ID
	}
	early := r.claims()
	v.Staged = r.names("staging")
	for _, name := range r.names("store") {
		if parseEntry(name).version != "" {
			v.Entries = append(v.Entries, name)
		}
	}
	for version, name := range v.Releases {
		if name == (entry{version, 0}).String() && !slices.Contains(v.Entries, name) {
			v.Entries = append(v.Entries, name) // the release is a directory, of the first layout
		}
	}
	v.Claims = r.claims()
	for version, all := range v.Claims {
		for i, c := range all {
			all[i].Ended = c.Ended && slices.Contains(early[version], c)
		}
	}
	return v
}

// still reads what must not change during a look.
func (r *reader) still() Volume {
	v := Volume{Releases: map[string]string{}, Pins: map[string]string{}}
	for _, name := range r.names("activations") {
		if n, ok := parseNumber(name); ok {
			a := Activation{}
			if json.Unmarshal(r.file(path.Join("activations", name)), &a) != nil || a.Number != n {
				a = Activation{}
			}
			a.Number = n
			v.Activations = append(v.Activations, a)
		}
	}
	slices.SortFunc(v.Activations, func(a, b Activation) int { return cmp.Compare(a.Number, b.Number) })
	for _, version := range r.names("releases") {
		text, err := r.root.Readlink(path.Join("releases", version))
		switch info, statErr := r.root.Lstat(path.Join("releases", version)); {
		case err == nil:
			v.Releases[version] = path.Base(text)
		case statErr == nil && info.IsDir():
			v.Releases[version] = entry{version, 0}.String()
		}
	}
	for _, unit := range r.names("pins") {
		if !strings.Contains(unit, ".") {
			v.Pins[unit] = strings.TrimSpace(string(r.file(path.Join("pins", unit))))
		}
	}
	return v
}

func (v Volume) equals(other Volume) bool {
	return reflect.DeepEqual(v.Activations, other.Activations) && maps.Equal(v.Releases, other.Releases) && maps.Equal(v.Pins, other.Pins)
}

// claims reads the logs of all versions.
func (r *reader) claims() map[string][]Claim {
	found := map[string][]Claim{}
	for _, version := range r.names("claims") {
		dir := path.Join("claims", version)
		for _, name := range r.names(dir) {
			n, ok := parseNumber(name)
			if !ok {
				continue
			}
			c := Claim{}
			if json.Unmarshal(r.file(path.Join(dir, name)), &c) != nil {
				c = Claim{}
			}
			c.Generation = n
			// On a full volume the sign of life is a link's text.
			beat := path.Join(dir, name+".beat")
			text, _ := r.root.Readlink(beat)
			c.Ended = cmp.Or(text, string(r.file(beat))) == "done"
			found[version] = append(found[version], c)
		}
		slices.SortFunc(found[version], func(a, b Claim) int { return cmp.Compare(a.Generation, b.Generation) })
	}
	return found
}

// names lists a directory, in order, without the private names of what is being made.
func (r *reader) names(dir string) []string {
	found, err := durable.Names(r.root, dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !durable.NotDir(r.root, dir) {
			r.err = cmp.Or(r.err, err)
		}
		return nil
	}
	slices.Sort(found)
	return slices.DeleteFunc(found, func(name string) bool { return strings.HasPrefix(name, ".") })
}

// file reads a file. One that is gone, or is none, has no content.
func (r *reader) file(name string) []byte {
	data, err := durable.ReadFile(r.root, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, durable.ErrUnusable) {
		r.err = cmp.Or(r.err, err)
	}
	return data
}
