package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/tree"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// The kinds of errors, to be tested for with errors.Is.
var (
	// ErrOptions: Options or a Product that cannot be meant.
	ErrOptions = errors.New("impossible options")
	// ErrVersion: not a version of the product.
	ErrVersion = errors.New("malformed version")
	// ErrNoVolume: a directory is no volume, or there is no such directory.
	ErrNoVolume = errors.New("not a volume")
	// ErrNotMounted: the root is not a mount of its own, or has no marker.
	ErrNotMounted = errors.New("volume is not mounted")
	// ErrUnmarked: something is mounted at the root that nobody has marked as shared. It
	// is an ErrNotMounted, too.
	ErrUnmarked error = &specialKind{"mount is not marked as shared", ErrNotMounted}
	// ErrForeignVolume: another volume is mounted than this unit has seen before. So are
	// the two kinds that follow.
	ErrForeignVolume = errors.New("another volume is mounted")
	// ErrOtherOwner: the volume belongs to another owner.
	ErrOtherOwner error = &specialKind{"the volume of another owner is mounted", ErrForeignVolume}
	// ErrNewerLayout: the layout of the volume is newer than this program.
	ErrNewerLayout error = &specialKind{"a volume of a newer layout is mounted", ErrForeignVolume}
	// ErrReadOnly: the volume is mounted so that nothing can be written to it.
	ErrReadOnly = probe.ErrReadOnly
	// ErrNoExec: the volume is mounted so that no program can be started from it.
	ErrNoExec = probe.ErrNoExec
	// ErrNoAccess: a user cannot start the programs of a release.
	ErrNoAccess = errors.New("a user has no access")
	// ErrHung: the mount did not answer before the context ended. The error of the
	// context is in the chain, too.
	ErrHung = mount.ErrHung
	// ErrUnreachable: the source did not answer, or answered with a server error.
	ErrUnreachable = fetch.ErrUnreachable
	// ErrUnauthorized: the source wants a token, or another one.
	ErrUnauthorized = fetch.ErrUnauthorized
	// ErrTooLarge: the archive is larger than any release can be.
	ErrTooLarge = fetch.ErrTooLarge
	// ErrNotFound: the source has no such release.
	ErrNotFound = fetch.ErrNotFound
	// ErrNotArchive: the source sent something that is no release of the product.
	ErrNotArchive = unpack.ErrNotArchive
	// ErrNoDigest: the source has no digest beside the release.
	ErrNoDigest = fetch.ErrNoDigest
	// ErrDigest: the bytes received are not those the digest was made of.
	ErrDigest = errors.New("digest mismatch")
	// ErrNoSpace: the volume is too small for the release, or nothing more can be
	// written to it.
	ErrNoSpace = errors.New("not enough space on the volume")
	// ErrNotInstalled: the release is not on the volume.
	ErrNotInstalled = publish.ErrNotInstalled
	// ErrCorrupt: the release on the volume differs from its manifest.
	ErrCorrupt = publish.ErrCorrupt
	// ErrArchitecture: the release on the volume is for machines of another kind.
	ErrArchitecture = errors.New("release of another architecture")
	// ErrNotActivated: no release was ever activated on the volume, or none before
	// the current one.
	ErrNotActivated = errors.New("no release is active")
	// ErrOvertaken: another unit has activated another release meanwhile.
	ErrOvertaken = errors.New("another release was activated meanwhile")
	// ErrHeld: another unit downloads.
	ErrHeld = claim.ErrHeld
	// ErrDamaged: a file by which the units agree cannot be read. The message names
	// it, and what to do.
	ErrDamaged = errors.New("a file of the volume is damaged")
	// ErrMounted: something is mounted below a directory that is to be removed.
	ErrMounted = tree.ErrMounted
)

// specialKind is a kind that is one of a more general kind, too.
type specialKind struct {
	text    string
	general error
}

func (k *specialKind) Error() string        { return k.text }
func (k *specialKind) Is(target error) bool { return target == k.general }

// Error is what the methods of Coordinator and View return. Its text is one line
// that fits a status; what an operator can do depends on who calls, who can tell
// the Kind.
type Error struct {
	Doing string // what was attempted: "install", "activate", ...
	What  string // on what: "Tool 1.2.3", or the root of the volume
	// Kind is one of the Err... variables; nil if it is none of them, such as an
	// I/O error or the end of a context.
	Kind error
	// Retry tells whether the same call may succeed later without anybody's doing.
	Retry bool
	Err   error // why
}

func (e *Error) Error() string {
	text := fmt.Sprintf("cannot %s %s: %v", e.Doing, e.What, e.Err)
	return strings.Join(strings.FieldsFunc(text, unicode.IsControl), "; ") // of several errors, or with what a file has in it
}

func (e *Error) Unwrap() error { return e.Err }

// kinds are in the order in which they explain an error that has several.
var kinds = []error{
	ErrOptions, ErrVersion, ErrNoVolume, ErrHung, ErrUnmarked, ErrNotMounted, ErrOtherOwner, ErrNewerLayout,
	ErrForeignVolume, ErrDamaged, ErrMounted, ErrReadOnly, ErrNoExec, ErrNoAccess, ErrNoSpace, ErrDigest, ErrNotArchive, ErrTooLarge, ErrUnauthorized,
	ErrNoDigest, ErrNotFound, ErrUnreachable, ErrOvertaken, ErrNotActivated, ErrHeld,
	ErrNotInstalled, ErrCorrupt, ErrArchitecture,
}

// passing are the kinds of what may pass without anybody's doing.
var passing = []error{ErrHung, ErrUnreachable, ErrHeld, ErrCorrupt}

// failed returns err as an *Error, or nil.
func failed(doing, what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EROFS) && !errors.Is(err, ErrReadOnly) {
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	if noSpace(err) && !errors.Is(err, ErrNoSpace) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	e := &Error{Doing: doing, What: what, Err: err}
	if i := slices.IndexFunc(kinds, func(kind error) bool { return errors.Is(err, kind) }); i >= 0 {
		e.Kind, e.Retry = kinds[i], slices.Contains(passing, kinds[i])
	}
	return e
}

// noSpace tells the kernel's words for a full volume.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
