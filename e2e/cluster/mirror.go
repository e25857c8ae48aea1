package cluster

import (
	"fmt"
	"strings"
)

// Mirror serves releases to the units and counts every byte: the truth about
// downloads.
type Mirror interface {
	// URL is the repository URL that units are configured with.
	URL() string
	// Transfer adds up all downloads of a version's archive so far.
	Transfer(version string) Transfer
	// Break makes the downloads of a version fail in one way, until Repair or
	// another Break.
	Break(version string, fault MirrorFault)
	Repair(version string)
}

// MirrorFault is a way in which a mirror can be wrong.
type MirrorFault string

const (
	NotFound    MirrorFault = "not-found"    // 404, as for a version that does not exist
	WebPage     MirrorFault = "web-page"     // HTML where a tarball is expected, as captive portals send
	WrongDigest MirrorFault = "wrong-digest" // the side files are not those of the tarball
)

// Transfer is what a ledger says about one archive.
type Transfer struct {
	Size     int64    // of the archive; 0 when nothing was ever sent
	Sent     int64    // bytes sent, repeated ones included
	Distinct int64    // bytes of the archive that were sent at least once
	Requests int      // that carried bytes
	Clients  []string // addresses that got bytes
}

// ExactlyOnce tells whether every byte of the archive was sent, and none twice.
func (t Transfer) ExactlyOnce() bool {
	return t.Size > 0 && t.Sent == t.Size && t.Distinct == t.Size
}

func (t Transfer) String() string {
	return fmt.Sprintf("%d of %d bytes, %d of them again, in %d requests from %s",
		t.Distinct, t.Size, t.Sent-t.Distinct, t.Requests, strings.Join(t.Clients, " "))
}
