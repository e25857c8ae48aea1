// Package coordinator installs a release exactly once on a file system that
// many machines share.
//
// Every machine calls Use with the version it wants. One of them downloads,
// verifies and publishes it; the others wait and then use the same files.
// Safety never rests on a lock: a release is staged in a private directory and
// becomes visible by one rename, so that the worst a broken lock can do is a
// second download whose result is thrown away.
//
// A mount may hang, as that of a file server that is gone does. No call hangs with
// it: each ends when its context ends, with ErrHung.
package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
)

const (
	// DefaultChunk is the length of a range in bytes when Options.Chunk is 0.
	DefaultChunk = fetch.DefaultChunk
	// DefaultLease is how long a silent holder is waited for when Options.Lease is 0.
	DefaultLease = claim.DefaultLease
)

// Options says who opens a volume and where releases come from. The zero value
// of each field but Unit and Product is a sensible default.
type Options struct {
	// Unit names this machine to the others, such as "ci/0" or "builder". Processes
	// that use one name at the same time must see each other in /proc: one takes what
	// another holds for that of a dead process otherwise. Two containers, or a machine
	// and a container on it, have two names.
	Unit string
	// Product is what is installed. All units of a volume have the same one.
	Product Product
	// Source is the URL of the directory below which archives are, without a password.
	// Empty is for a unit that installs nothing.
	Source string

	// Marker demands that the root is a mount of its own with a file of this name,
	// which says: this mount is shared on purpose. Empty takes any directory.
	Marker string
	// Owner is who the volume belongs to. A volume of another owner is refused. A new
	// volume gets this one; empty accepts any.
	Owner string
	// VolumeID is the id this unit has seen before. A volume with another id
	// is refused. Empty accepts any: the first sight of a volume.
	VolumeID string
	// Accept is the ForeignVolume.State of a volume that Open makes Owner's. If it has
	// been handed over since, it stays as it is. For a volume that has no id it is the id
	// that it gets. VolumeID is not looked at then, but AcceptedID(Accept).
	Accept string

	// Digest pins the archive, as "sha256:HEX". Empty takes the files beside it that
	// Product names.
	Digest string
	// AllowUnverified installs a release that has no digest at all.
	AllowUnverified bool
	// Lease is how long this unit, when it downloads, may be silent before another
	// one takes its place; it shows that it lives four times as often. What it costs
	// is that long a wait after a crash, where file locks do not tell of it, and
	// a second download if a unit is only slow. 0 is DefaultLease.
	Lease time.Duration
	// Token goes as "Authorization: Bearer" with requests to the host of Source,
	// for GitHub's also to that of its API. It is sent to no other host, wherever
	// a request is redirected to, and is never logged.
	Token string
	// Chunk is the length of a range in bytes. 0 is DefaultChunk.
	Chunk int64
	// Helper is a command that calls probe.Help with the argument that is appended
	// to it: with one, Probe asks a mount that may hang from another process.
	Helper []string
	// Client makes the requests; nil is a client with sane limits.
	Client *http.Client
	// Log receives what an operator may want to read later; nil discards it.
	Log *slog.Logger
	// Progress is called while a release is fetched or waited for, at most
	// once a second and on every change of State. It is called from goroutines
	// of Ensure, one at a time, and must not block for long.
	Progress func(Progress)
}

// State is what a unit does for a release.
type State string

const (
	Waiting     State = "waiting"     // another unit holds the claim
	Downloading State = "downloading" // this unit fetches and unpacks
	Installed   State = "installed"   // the release is on the volume
)

// Progress tells how far a release is, whoever fetches it. It is also what
// .download_in_progress holds, as JSON.
type Progress struct {
	Version string    `json:"version"`
	State   State     `json:"state"`
	Unit    string    `json:"unit"`  // who downloads
	Bytes   int64     `json:"bytes"` // received so far
	Total   int64     `json:"total"` // size of the archive, 0 while unknown
	Started time.Time `json:"started"`
}

// Release is a verified release on the volume.
type Release struct {
	Version string `json:"version"`
	// Dir holds the files. It is that of one download, ROOT/store/VERSION.GENERATION,
	// to which the link ROOT/releases/VERSION leads: when the release is installed
	// anew, what runs from Dir keeps it for as long as the unit has it pinned.
	Dir         string        `json:"dir"`
	Digest      string        `json:"digest"`       // of the archive, "sha256:HEX"
	Contents    string        `json:"contents"`     // of all that its manifest says of the files, "sha256:HEX"
	InstalledBy string        `json:"installed_by"` // the unit that downloaded it
	Bytes       int64         `json:"bytes"`        // sum of the files' sizes
	Downloaded  bool          `json:"-"`            // this call fetched it
	Took        time.Duration `json:"-"`            // how long this call took
}

// Activation is one entry of the log that says which release is current.
type Activation struct {
	Generation int    `json:"generation"`
	Version    string `json:"version"`
	Unit       string `json:"unit"` // who activated it
	// Restores is the generation that a rollback went back to, else 0.
	Restores int `json:"restores,omitempty"`
}

// Coordinator is one unit's access to a volume. It is safe for concurrent use,
// and needs no closing: it keeps no file open between calls. A call holds the
// root of the volume that it has looked at, and does all that it does there: a
// mount that is lost, or put over it, meanwhile gets nothing of it.
//
// Errors of its methods are *Error. The kinds that each method lists come on top of
// those that all have: ErrHung, ErrNotMounted, ErrForeignVolume, and the error of
// the context.
type Coordinator struct {
	View
	options Options
	source  fetch.Source
	digest  fetch.Digest // from Options.Digest
	memory  memory
}

// memory is what a Coordinator knows from call to call.
type memory struct {
	turns   sync.Map                           // *publish.Turns, by version
	logged  sync.Map                           // what is in the log once
	seen    sync.Map                           // sighting, by the nonce of a failure noted on the volume
	probes  sync.Map                           // time.Time when a directory of probes was first seen, by its name
	locking chan struct{}                      // see claim.Log.Turn
	now     func() time.Time                   // tests own it
	at      func(point string, generation int) // tests stop units there
}

// Open looks at the volume mounted at root, or, without Options.Marker, at the
// directory root, which it makes. It gives a new volume its id. Errors, beside
// those that all calls have, are ErrOptions, ErrVersion and ErrNoDigest for
// Options that cannot be meant.
func Open(ctx context.Context, root string, o Options) (*Coordinator, error) {
	root, err := filepath.Abs(root)
	var c *Coordinator
	if err == nil {
		c, err = newCoordinator(root, o)
	}
	if err == nil {
		c.id, err = mount.Call(ctx, c.mount, func(context.Context) (string, error) { return c.open() })
	}
	if err != nil {
		return nil, failed("open", root, err)
	}
	return c, nil
}

// newCoordinator refuses what cannot be meant, and touches no file.
func newCoordinator(root string, o Options) (*Coordinator, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Client = cmp.Or(o.Client, fetch.NewClient())
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Lease = cmp.Or(o.Lease, DefaultLease)
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	c := &Coordinator{
		View:    View{dir: root, mount: mount.At(root), product: o.Product, id: o.VolumeID, marker: o.Marker, owner: o.Owner},
		options: o,
		source: fetch.Source{
			URL: o.Source, Archive: o.Product.Archive, Client: o.Client, Policy: fetch.DefaultPolicy,
			Token: o.Token, Chunk: o.Chunk, MaxBytes: maxArchive,
		},
		memory: memory{locking: make(chan struct{}, 1), now: time.Now, at: func(string, int) {}},
	}
	if o.Accept != "" {
		c.id = AcceptedID(o.Accept)
	}
	if o.Digest != "" {
		var err error
		if c.digest, err = fetch.ParseDigest(o.Digest); err != nil {
			return nil, fmt.Errorf("%w: %w: %w", ErrOptions, ErrNoDigest, err)
		}
		if c.digest.Algorithm != "sha256" {
			// Nothing tells whether a release that is installed was made of it.
			return nil, fmt.Errorf("%w: %w: %s can be forged: pin the archive's sha256", ErrOptions, ErrNoDigest, c.digest.Algorithm)
		}
	}
	return c, nil
}

// VolumeID returns the random id of the volume; remember it and pass it to the
// next Open.
func (c *Coordinator) VolumeID() string { return c.id }

// Limits of what can be meant.
const (
	minLease = 100 * time.Millisecond // tests have short ones; a holder renews four times in it
	maxLease = 10 * time.Minute
	minChunk = 1 << 10 // below that a request costs more than what it brings
	maxChunk = 1 << 40 // archives are smaller
	maxText  = 1 << 10 // bytes of what people and machines are called
	maxName  = 255     // bytes of a file's name, on every file system
	// maxArchive is ten times the largest release known: what is larger, or does not
	// end, is no archive.
	maxArchive = 8 << 30
)

// A unit's name becomes part of file names.
var (
	unitForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}(/[0-9]{1,9})?$`)
	reservedUnit = regexp.MustCompile(`-[0-9]{1,9}$`)
)

// validUnit refuses names that are the same as that of a file: "ci-0" and "ci/0".
func validUnit(name string) bool {
	return unitForm.MatchString(name) && !reservedUnit.MatchString(name)
}

// fileName returns the name of a unit as that of a file: "ci-0" for "ci/0".
func fileName(unit string) string { return strings.ReplaceAll(unit, "/", "-") }

// oneLine tells whether a text fits into a status and a header.
func oneLine(text string) bool {
	return len(text) <= maxText && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// plainName tells whether a text is the name of a file in some directory.
func plainName(text string) bool {
	return fs.ValidPath(text) && text != "." && !strings.Contains(text, "/") && len(text) <= maxName && oneLine(text)
}

// check refuses what cannot be meant, but for Digest.
func (o Options) check() error {
	if err := o.Product.check(); err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...)
	}
	switch {
	case !validUnit(o.Unit):
		return refuse("%.80q is no name of a unit, such as ci/0 or builder", o.Unit)
	case o.Lease < 0 || o.Lease > 0 && o.Lease < minLease || o.Lease > maxLease:
		return refuse("a lease of %s is not between %s and %s", o.Lease, minLease, maxLease)
	case o.Marker != "" && (!plainName(o.Marker) || taken(o.Marker) || o.Marker == o.Product.Link):
		return refuse("%.80q is no file name for a marker", o.Marker)
	case !oneLine(o.Owner):
		return refuse("an owner %.80q is no short line", o.Owner)
	case !oneLine(o.VolumeID) || !oneLine(o.Accept):
		return refuse("%.80q is no id of a volume", o.VolumeID)
	case !oneLine(o.Token):
		return refuse("the token is no line of text")
	case o.Chunk < 0 || o.Chunk > 0 && o.Chunk < minChunk || o.Chunk > maxChunk:
		return refuse("a chunk of %d bytes is not between %d and %d", o.Chunk, minChunk, int64(maxChunk))
	case o.Source == "":
		return nil // this unit installs nothing
	}
	u, err := url.Parse(o.Source)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return refuse("the source is not of the form https://HOST/OWNER/REPOSITORY")
	}
	return nil
}
