package cluster

import (
	"fmt"
	"strings"
	"time"
)

// Mirror serves releases to the units and counts every byte: the truth about
// downloads.
type Mirror interface {
	// URL is the repository URL that units are configured with.
	URL() string
	// Transfer adds up all downloads of a version's archive so far.
	Transfer(version string) Transfer
	// Attempts are when each request for the archive of a version came in, from the
	// client at an address; from all if that is empty.
	Attempts(version, address string) []time.Time
	// Break makes the downloads of a version fail in one way, until Repair or
	// another Break.
	Break(version string, fault MirrorFault)
	Repair(version string)
}

// MirrorFault is how a mirror misbehaves for one version. Fields combine; the zero
// value is a healthy mirror.
type MirrorFault struct {
	// Name says what is wrong, for people.
	Name string
	// Status answers requests for the archive, such as 404 or 503.
	Status int
	// RetryAfter goes with Status, in whole seconds; 0 is without.
	RetryAfter time.Duration
	// HTML answers 200 with a web page, as a captive portal does.
	HTML bool
	// Truncate cuts the connection after so many bytes of each answer.
	Truncate int64
	// Rate limits each answer to so many bytes a second.
	Rate int64
	// Hold sends so many bytes of each answer and then nothing, until the fault ends.
	Hold int64
	// NoRanges sends the whole archive whatever part is asked for.
	NoRanges bool
	// Validator is another ETag for the same bytes, as from another node of a CDN.
	Validator string
	// WrongDigest serves .sha256 and .sha1 files of other bytes.
	WrongDigest bool
	// NoDigest answers 404 for the .sha256 and .sha1 files.
	NoDigest bool
	// First limits the fault to the first so many requests for the archive,
	// for a source that recovers; 0 means until it is cleared.
	First int
}

func (f MirrorFault) String() string { return f.Name }

// What every mirror may be.
var (
	NotFound    = MirrorFault{Name: "not found", Status: 404}
	WebPage     = MirrorFault{Name: "a web page instead", HTML: true}
	WrongDigest = MirrorFault{Name: "a wrong digest", WrongDigest: true}
)

// Transfer is how often an archive's bytes were sent, over all downloads.
type Transfer struct {
	Size     int64    // of the archive; 0 when nothing was ever sent
	Sent     int64    // bytes sent, repeated ones included
	Distinct int64    // bytes of the archive that were sent at least once
	Requests int      // that carried bytes
	Clients  []string // addresses that got bytes, sorted
}

// ExactlyOnce tells whether every byte of the archive was sent, and none twice.
func (t Transfer) ExactlyOnce() bool {
	return t.Size > 0 && t.Sent == t.Size && t.Distinct == t.Size
}

func (t Transfer) String() string {
	return fmt.Sprintf("%d of %d bytes, %d of them again, in %d requests from %s",
		t.Distinct, t.Size, t.Sent-t.Distinct, t.Requests, strings.Join(t.Clients, " "))
}
