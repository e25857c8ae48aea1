package coordinator

import (
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what can be meant.
const (
	minLease       = 100 * time.Millisecond // tests have short ones; a holder renews four times in it
	maxLease       = 10 * time.Minute
	maxConnections = 64      // servers refuse fewer
	minChunk       = 1 << 10 // below that a request costs more than what it brings
	maxChunk       = 1 << 40 // archives are smaller
	maxText        = 1 << 10 // bytes of what people and machines are called
	maxName        = 255     // bytes of a file's name, on every file system
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
	case o.Marker != "" && (!plainName(o.Marker) || names[o.Marker] || o.Marker == o.Product.Link):
		return refuse("%.80q is no file name for a marker", o.Marker)
	case !oneLine(o.Owner):
		return refuse("an owner %.80q is no short line", o.Owner)
	case !oneLine(o.VolumeID):
		return refuse("%.80q is no id of a volume", o.VolumeID)
	case !oneLine(o.Token):
		return refuse("the token is no line of text")
	case o.Connections < 0 || o.Connections > maxConnections:
		return refuse("%d connections are not between 1 and %d", o.Connections, maxConnections)
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
