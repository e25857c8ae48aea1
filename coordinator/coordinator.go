// Package coordinator installs a release exactly once on a file system that
// many machines share.
//
// Every machine calls Ensure with the version it wants. One of them downloads,
// verifies and publishes it; the others wait and then use the same files.
// Safety never rests on a lock: a release is staged in a private directory and
// becomes visible by one rename, so that the worst a broken lock can do is a
// second download whose result is thrown away.
package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// DefaultSource is the repository whose releases are installed when
// Options.Source is empty.
const DefaultSource = "https://github.com/concourse/concourse"

// DefaultChunk is the length of a range in bytes when Options.Chunk is 0.
const DefaultChunk = fetch.DefaultChunk

// Marker is the file in the root of a volume that says: this mount is shared
// on purpose. Who attaches the volume puts it there.
const Marker = ".lxc_shared_storage"

// What callers can test for with errors.Is. Each error is one line that fits a
// status: what was attempted, what went wrong, and what an operator can do.
var (
	// ErrNotMounted: the root is not a mount of its own, or has no Marker.
	ErrNotMounted = errors.New("volume is not mounted")
	// ErrForeignVolume: another volume is mounted than this unit has seen before.
	ErrForeignVolume = errors.New("another volume is mounted")
	// ErrVersion: a version that is not of the form 7.14.3.
	ErrVersion = errors.New("malformed version")
	// ErrUnreachable: the source did not answer, or answered with a server error.
	ErrUnreachable = fetch.ErrUnreachable
	// ErrNotFound: the source has no such release.
	ErrNotFound = fetch.ErrNotFound
	// ErrUnauthorized: the source wants a token, or another one.
	ErrUnauthorized = fetch.ErrUnauthorized
	// ErrNotArchive: the source sent something that is no release tarball.
	ErrNotArchive = unpack.ErrNotArchive
	// ErrNoDigest: the source has no digest beside the release.
	ErrNoDigest = fetch.ErrNoDigest
	// ErrDigest: the bytes received are not those the digest was made of.
	ErrDigest = errors.New("digest mismatch")
	// ErrNoSpace: the volume is too small for the release.
	ErrNoSpace = errors.New("not enough space on the volume")
	// ErrNotInstalled: the release is not on the volume.
	ErrNotInstalled = publish.ErrNotInstalled
	// ErrNotActivated: no release was ever activated on the volume, or none
	// before the current one.
	ErrNotActivated = errors.New("no release is active")
	// ErrOvertaken: another unit has activated another release meanwhile.
	ErrOvertaken = errors.New("another release was activated meanwhile")
	// ErrHeld: another unit downloads.
	ErrHeld = claim.ErrHeld
	// ErrCorrupt: the release on the volume differs from its manifest.
	ErrCorrupt = publish.ErrCorrupt
)

// Options says who opens a volume and where releases come from. The zero value
// of each field but Unit is a sensible default.
type Options struct {
	// Unit names this machine to the others, such as "concourse-ci/0".
	Unit string
	// Shared demands that the root is a mount of its own that carries Marker.
	// Without it the root is a plain local directory; nothing else differs.
	Shared bool
	// VolumeID is the id this unit has seen before. A volume with another id
	// is refused. Empty accepts any: the first sight of a volume.
	VolumeID string
	// Source is the URL of a repository in GitHub's layout:
	// SOURCE/releases/download/vVERSION/concourse-VERSION-linux-amd64.tgz.
	Source string
	// Digest pins the archive, as "sha256:HEX". Empty takes the side file
	// .sha256, else .sha1.
	Digest string
	// AllowUnverified installs a release that has no digest at all.
	AllowUnverified bool
	// Lease is how long a unit that downloads may be silent before another one
	// takes its place; it shows that it lives four times as often. What it costs
	// is that long a wait after a crash, where file locks do not tell of it, and
	// a second download if a unit is only slow. 0 is 20 s. All
	// units of a volume need the same one.
	Lease time.Duration
	// Token goes as "Authorization: Bearer" with requests to the host of Source,
	// for GitHub's also to that of its API. It is sent to no other host, wherever
	// a request is redirected to, and is never logged.
	Token string
	// Connections is how many ranges of an archive are fetched at a time. 0 is
	// 4: one connection seldom fills a long line.
	Connections int
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
	Version     string        `json:"version"`
	Dir         string        `json:"dir"`          // ROOT/releases/VERSION; bin/concourse is below it
	Digest      string        `json:"digest"`       // of the archive, "sha256:HEX"
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
}

// Report is what Inspect finds on a volume.
type Report struct {
	Root     string            `json:"root"`
	VolumeID string            `json:"volume_id"`
	Current  *Activation       `json:"current"`
	Releases []Release         `json:"releases"`
	Progress *Progress         `json:"progress,omitempty"` // a download under way
	Holder   string            `json:"holder,omitempty"`   // unit named in the lock file
	Pins     map[string]string `json:"pins"`               // unit, as a file name ("concourse-ci-0") -> version
	Free     uint64            `json:"free_bytes"`
	// Probes are what units have found out about their mounts, see Probe, by unit
	// as a file name.
	Probes map[string]probe.Result `json:"probes"`
}

// Coordinator is one unit's view of a volume. It is safe for concurrent use,
// and needs no closing: it keeps no file open between calls. A call holds the
// root of the volume that it has looked at, and does all that it does there: a
// mount that is lost, or put over it, meanwhile gets nothing of it.
type Coordinator struct {
	dir     string // where the volume is mounted
	options Options
	unit    string // Options.Unit as a file name
	id      string
	source  fetch.Source
	digest  fetch.Digest // from Options.Digest

	mu   sync.Mutex
	told map[string]bool // versions whose reuse is in the log

	at func(point string, generation int) // for tests, which stop units there
}

// A unit's name becomes part of file names.
var unitForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(/[0-9]+)?$`)

// Open looks at the volume mounted at root, or, unless o.Shared, at the
// directory root, which it makes. It gives a new volume its id. Errors are
// ErrNotMounted and ErrForeignVolume.
func Open(root string, o Options) (*Coordinator, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("cannot open the volume: %w", err)
	}
	if !unitForm.MatchString(o.Unit) {
		return nil, fmt.Errorf("cannot open %s: %q is no name of a unit, such as concourse-ci/0", root, o.Unit)
	}
	if o.Source == "" {
		o.Source = DefaultSource
	}
	if o.Client == nil {
		o.Client = fetch.NewClient()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lease == 0 {
		o.Lease = claim.DefaultLease
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	c := &Coordinator{
		dir:     root,
		options: o,
		unit:    strings.ReplaceAll(o.Unit, "/", "-"),
		source: fetch.Source{
			URL: o.Source, Layout: layout(), Client: o.Client, Policy: fetch.DefaultPolicy,
			Token: o.Token, Connections: o.Connections, Chunk: o.Chunk,
		},
		told: map[string]bool{},
		at:   func(string, int) {},
	}
	if o.Digest != "" {
		if c.digest, err = fetch.ParseDigest(o.Digest); err != nil {
			return nil, fmt.Errorf("cannot open %s: %w: option digest: %w", root, ErrNoDigest, err)
		}
	}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", root, err)
	}
	return c, nil
}

func (c *Coordinator) open() error {
	if !c.options.Shared {
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return c.unopened(err)
	}
	defer root.Close()
	if c.options.Shared {
		if err := mounted(root); err != nil {
			return err
		}
	}
	if c.id = c.options.VolumeID; c.id == "" {
		if c.id, err = christen(root); err != nil {
			return err
		}
	} else if err := c.same(identify(root)); err != nil {
		return err
	}
	return (&volume{c, root}).layOut()
}

// VolumeID returns the random id of the volume; remember it and pass it to the
// next Open.
func (c *Coordinator) VolumeID() string { return c.id }

// remedy tells what an operator can do about an error, as the end of a sentence.
func remedy(err error) string {
	switch {
	case errors.Is(err, ErrNotFound):
		return ": check the options version and release-url"
	case errors.Is(err, ErrUnauthorized):
		return ": check the token, and that it gives access to the release"
	case errors.Is(err, fetch.ErrChanged):
		return ": try again; if it stays so, name one server instead of several with the option release-url"
	case errors.Is(err, ErrUnreachable):
		return ": check the network, the proxy and the option release-url"
	case errors.Is(err, ErrNotArchive):
		return ": check the option release-url, and that no proxy answers in its place"
	case errors.Is(err, ErrNoDigest):
		return ": put the .sha256 file beside the archive"
	case errors.Is(err, ErrDigest):
		return ": nothing was installed; check the option release-digest, the mirror and the proxy between"
	case errors.Is(err, ErrNoSpace):
		return ": enlarge the volume or remove what is not needed"
	}
	return ""
}
