package coordinator

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// What could not be installed, and would not be if it were tried again, is noted on
// the volume, so that no unit finds it out by another download. As with claims, no
// time of one machine is compared with one of another: a unit counts the pause from
// when it first saw the note, which has a nonce, on its own clock.
const (
	// firstPause and lastPause are for what only somebody can mend: two archives in
	// the first hour, then one an hour.
	firstPause = 30 * time.Minute
	lastPause  = time.Hour
	// recheck is how often a look is taken whether the cause is gone. With callers who
	// call again every 10 s it is noticed within 30 s, see mended for what takes longer.
	recheck = 15 * time.Second
)

// failure is what is noted.
type failure struct {
	Nonce   string `json:"nonce"`
	Unit    string `json:"unit"` // who found it out
	Kind    string `json:"kind"` // see failureKinds
	Message string `json:"message"`
	Times   int    `json:"times"` // in a row
	Proof   proof  `json:"proof"`
	// Needs and NeedsFiles are how many bytes and inodes have to be free before it
	// makes sense to try again.
	Needs      uint64 `json:"needs,omitempty"`
	NeedsFiles uint64 `json:"needs_files,omitempty"`
	// Share is what an attempt costs, as a part of an archive: the pause is that part
	// of the usual one. 0 stands for 1.
	Share float64 `json:"share,omitempty"`
}

// proof is what the source had when it failed. That it has something else is why to
// try again before the pause is over.
type proof struct {
	Digest string            `json:"digest,omitempty"` // that the archive must have
	Source fetch.Fingerprint `json:"source"`
}

// failureKinds are errors of which it takes a download to find them out.
var failureKinds = map[string]error{
	"digest mismatch":  ErrDigest,
	"not an archive":   ErrNotArchive,
	"too large":        ErrTooLarge,
	"not enough space": ErrNoSpace,
	brokeOff:           ErrUnreachable,
}

// brokeOff is the kind of a download that broke off, and cannot be gone on with where
// it did: the source ignores ranges, or does not say how long the archive is.
const brokeOff = "broke off"

// sighting is when this process first saw a note, and last looked for its cause. The
// zero value ends the pause: the cause was seen to be gone.
type sighting struct{ first, looked time.Time }

// failureFile names the note about what this unit asks for: another source, or
// another digest, is another matter.
func (u *unit) failureFile(version string) string {
	asked := sha256.Sum256([]byte(u.c.options.Source + " " + u.c.digest.String()))
	return path.Join(failuresDir, version+"."+hex.EncodeToString(asked[:4]))
}

// failure returns the note, if there is one that can be read.
func (v *volume) failure(file string) (failure, bool) {
	f, err := readJSON[failure](v.root, file)
	_, known := failureKinds[f.Kind]
	return f, err == nil && known && f.Nonce != ""
}

// pause is how long nobody tries again.
func (f failure) pause() time.Duration {
	pause := min(firstPause<<min(max(f.Times-1, 0), 8), lastPause)
	if f.Share > 0 && f.Share < 1 {
		pause = time.Duration(f.Share * float64(pause))
	}
	return pause
}

// blocked returns the error that is noted, while it makes no sense to try again.
func (u *unit) blocked(ctx context.Context, version string) error {
	f, ok := u.failure(u.failureFile(version))
	if !ok {
		return nil
	}
	seen, now := &u.c.memory.seen, u.c.memory.now()
	known, _ := seen.LoadOrStore(f.Nonce, sighting{first: now})
	s := known.(sighting)
	waited := now.Sub(s.first)
	if waited >= f.pause() {
		return nil
	}
	if now.Sub(s.looked) >= recheck && seen.CompareAndSwap(f.Nonce, s, sighting{s.first, now}) && u.mended(ctx, version, f, waited) {
		seen.Store(f.Nonce, sighting{})
		return nil
	}
	return &knownFailure{failure: f, left: f.pause() - waited}
}

// mended looks, in requests of a few hundred bytes, whether the cause is gone. Some
// servers give one archive many validators: another one is believed the later, the
// more often the archive has failed.
func (u *unit) mended(ctx context.Context, version string, f failure, waited time.Duration) bool {
	if free, err := u.room(); failureKinds[f.Kind] == ErrNoSpace && err == nil && free.bytes >= f.Needs && free.files > f.NeedsFiles {
		return true
	}
	if u.c.digest == (fetch.Digest{}) {
		if digest, err := u.c.source.Digest(ctx, version); err == nil && digest.String() != f.Proof.Digest {
			return true
		}
	}
	now, err := u.c.source.Fingerprint(ctx, version)
	was := f.Proof.Source
	if err == nil && f.Kind == brokeOff && now.Ranges && !was.Ranges {
		return true // by now it can be gone on with
	}
	now.Ranges, was.Ranges = false, false
	switch {
	case err != nil || now == was:
		return false
	case now.Size > 0 && was.Size > 0 && now.Size != was.Size:
		return true
	case was != (fetch.Fingerprint{}) && (now.Validator == "" || was.Validator == "" || now.Validator == was.Validator):
		return false // one answer tells less than the other
	}
	return waited >= recheck<<min(max(f.Times-1, 0), 8)
}

// block notes an error that this unit has found out by a download, unless to try again
// costs none.
func (u *unit) block(ctx context.Context, s *stage, err error) {
	f := failure{Nonce: rand.Text(), Unit: u.c.options.Unit, Message: err.Error(), Proof: s.proof, Needs: s.needs, Times: 1}
	for kind, is := range failureKinds {
		if errors.Is(err, is) {
			f.Kind = kind
		}
	}
	if f.Kind == brokeOff {
		// Half of an archive, or more, is the whole pause.
		f.Share = min(2*float64(s.wasted)/float64(max(s.total, 1)), 1)
	}
	if f.Kind == "" || f.Kind == brokeOff && s.wasted == 0 {
		return // to try again costs no download: nothing was fetched, or it is kept
	}
	if f.Kind == brokeOff || f.Proof.Source == (fetch.Fingerprint{}) { // or nothing was downloaded
		f.Proof.Source, _ = u.c.source.Fingerprint(ctx, s.goal.version)
	}
	free, err := u.room()
	if s.exhausted != nil && s.exhausted.files == 0 && err == nil {
		f.NeedsFiles = free.files // it was not enough
	} else if f.Needs == 0 && err == nil {
		f.Needs = free.bytes + uint64(s.total)/2
	}
	file := u.failureFile(s.goal.version)
	if old, ok := u.failure(file); ok {
		f.Times = old.Times + 1
	}
	if u.check() == nil {
		u.warn("cannot note for the others what went wrong", durable.Replace(u.root, file, encode(f)))
	}
	u.c.memory.seen.Store(f.Nonce, sighting{first: u.c.memory.now()})
}

// unblock removes all notes about a version that is installed.
func (u *unit) unblock(version string) {
	found, _ := durable.Names(u.root, failuresDir) // nothing depends on it
	for _, name := range found {
		if hash, ok := strings.CutPrefix(name, version+"."); ok && !strings.Contains(hash, ".") {
			u.root.Remove(path.Join(failuresDir, name))
		}
	}
}

// knownFailure is an error that is not found out anew.
type knownFailure struct {
	failure
	left time.Duration
}

func (f *knownFailure) Error() string {
	return fmt.Sprintf("%s (found out by %s; tried again in %s, or when the cause is seen to be gone)",
		f.Message, f.Unit, f.left.Round(time.Second))
}

func (f *knownFailure) Unwrap() error { return failureKinds[f.Kind] }
