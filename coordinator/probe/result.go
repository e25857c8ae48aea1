package probe

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Locks says what flock is worth on a mount.
type Locks string

const (
	// Exclusive: one process keeps out another one on this machine. Whether it
	// keeps out one on another machine, one machine cannot know.
	Exclusive Locks = "exclusive on this machine, unknown between machines"
	// Shared: a unit was seen to keep out one on another machine.
	Shared Locks = "exclusive"
	// NodeLocal: a unit got the lock while one on another machine had it.
	NodeLocal Locks = "node-local"
	// Worthless: everybody gets the lock.
	Worthless Locks = "worthless"
	// Absent: flock fails.
	Absent Locks = "absent"
	// Hanging: flock does not return.
	Hanging Locks = "hanging"
	// Untried: nothing could be written, so that no lock was tried.
	Untried Locks = "unknown"
)

// Useless tells whether there is no point in trying to lock.
func (l Locks) Useless() bool { return l == Worthless || l == Absent || l == Hanging }

// Answer says whether something works.
type Answer string

const (
	Works   Answer = "works"
	Fails   Answer = "fails"
	Hangs   Answer = "hangs"
	Unknown Answer = "unknown" // it needed something that failed
)

// String tells of what was never asked that it is unknown.
func (a Answer) String() string { return cmp.Or(string(a), string(Unknown)) }

// Result is what a mount can do. Of one that an older version has written down,
// an answer to what was not asked then is empty.
type Result struct {
	Locks   Locks  `json:"locks"`
	Link    Answer `json:"link"`     // a second name of a file or symbolic link, refused where there is one
	Rename  Answer `json:"rename"`   // replaces a file, but no directory that is not empty
	SyncDir Answer `json:"sync_dir"` // fsync of a directory
	Modes   Answer `json:"modes"`    // a file keeps the mode it is given
	Execute Answer `json:"execute"`  // this user may execute a file of mode 0555
	Symlink Answer `json:"symlink"`
	Volume
	// Notes are the errors behind what fails.
	Notes []string      `json:"notes,omitempty"`
	Took  time.Duration `json:"took_ns"`
}

func allAnswered(a Answer, l Locks) Result {
	return Result{Locks: l, Link: a, Rename: a, SyncDir: a, Modes: a, Execute: a, Symlink: a}
}

// Sound tells whether the mount has what installing on it needs. One that does not
// even tell its file system has not.
func (r Result) Sound() bool {
	for _, a := range []Answer{r.Link, r.Rename, r.Modes, r.Execute, r.Symlink} {
		if a != Works {
			return false
		}
	}
	return r.FileSystem != "" && !r.ReadOnly
}

func (r Result) String() string {
	return fmt.Sprintf("%s; locks %s; link %s, rename %s, modes %s, execute %s, symlink %s, sync of directories %s",
		r.Volume, r.Locks, r.Link, r.Rename, r.Modes, r.Execute, r.Symlink, r.SyncDir)
}

// record notes what became of one of its questions.
func (r *Result) record(q question, err error) {
	switch {
	case q.answer == nil && err == nil:
		r.Locks = Exclusive
	case q.answer == nil && errors.Is(err, errWorthless):
		r.Locks = Worthless
	case q.answer == nil:
		r.Locks = Absent
	case err == nil:
		*q.answer = Works
	case errors.Is(err, errNeeds):
		*q.answer = Unknown
	default:
		*q.answer = Fails
	}
	if err != nil {
		r.Notes = append(r.Notes, q.name+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}
