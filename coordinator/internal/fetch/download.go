package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"
)

const (
	// firstSync: most archives are there, unpacked and deleted before it, and the
	// disk never has to write them. A power cut before costs what was downloaded
	// until then.
	firstSync = 30 * time.Second
	// syncPause bounds what a power cut costs later, and what syncing costs: the
	// disk has less time for the rest. One that is slow at it is left alone for
	// three times as long as it took.
	syncPause = 5 * time.Second
	// hashedAtOnce bounds what is read back for the digests at a time.
	hashedAtOnce = 1 << 20
)

var errClosed = errors.New("the download was closed")

// Download is an archive on its way into a file, by several connections and in
// any order. Readers see the prefix that is complete, while it grows; the
// digest is computed beside them, in order and once.
//
// A download that ends before its time leaves a partial file and a journal, with
// which another, also on another machine, goes on. If the server still has the
// same archive, only what the journal did not yet know of is fetched and hashed
// again: a MiB, and after a power cut also what was not synced.
type Download struct {
	URL         string // without its password
	Fingerprint        // of the archive; its size is 0 if the server did not say
	Reused      int64  // bytes that an earlier attempt left

	root    *os.Root
	dir     string // below root
	kept    kept   // as the journal begins
	remote  *remote
	first   *answer // to the request that Open made, unread; nil if all is there
	partial *partial
	sums    sums

	ctx    context.Context
	cancel context.CancelCauseFunc
	all    sync.WaitGroup

	syncing sync.Mutex
	lost    error // what the volume said when it lost some of the bytes
}

// Open asks for the archive of a release, and looks in dir, below root, for what
// an earlier attempt left. The directory need not be there. It writes nothing. If
// want is zero the server's validators alone tell whether the archive changed. The
// download ends with ctx; who opens it must Close it. Errors are those of Wait.
func (s Source) Open(ctx context.Context, version string, root *os.Root, dir string, want Digest) (*Download, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s.Connections = cmp.Or(s.Connections, DefaultConnections)
	s.Chunk = cmp.Or(s.Chunk, DefaultChunk)
	url := s.ArchiveURL(version)
	d := &Download{URL: redact(url), root: root, dir: dir}
	stop := func() {}
	if s.Policy.Total > 0 {
		ctx, stop = context.WithTimeoutCause(ctx, s.Policy.Total, fmt.Errorf("%s: %w: it takes longer than %s", d.URL, ErrUnreachable, s.Policy.Total))
	}
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	context.AfterFunc(d.ctx, stop)

	anew := kept{header: header{URL: d.URL, Digest: want.String(), Boot: bootID()}}
	k := readKept(root, dir, anew.Boot)
	if !k.continues(anew.header) || s.MaxBytes > 0 && k.Size > s.MaxBytes {
		k = anew
	}
	k.Boot = anew.Boot
	err := d.ask(s, url, k, want)
	if k.Size > 0 && errors.Is(err, ErrChanged) {
		err = d.ask(s, url, anew, want)
	}
	if err != nil {
		d.cancel(err)
		return nil, err
	}
	return d, nil
}

// continues tells whether what is kept is a part of the archive that h is about.
// Without a digest and without a validator nobody knows.
func (k kept) continues(h header) bool {
	return k.URL == h.URL && k.Digest == h.Digest && (k.Validator != "" || k.Digest != Digest{}.String())
}

// expected is what the server must say of the archive. The nodes of a CDN may
// differ about a validator: where there is a digest, that judges.
func (h header) expected() Fingerprint {
	if h.Digest != (Digest{}.String()) {
		return Fingerprint{Size: h.Size}
	}
	return h.Fingerprint
}

// ask takes over what is kept, and asks for the first bytes that are not.
func (d *Download) ask(s Source, url string, k kept, want Digest) (err error) {
	d.Reused, d.first, d.sums = k.There.bytes(), nil, newSums(want)
	if k.Hashed == 0 || d.sums.restore(k.Sums) != nil {
		k.Hashed, k.Sums, d.sums = 0, nil, newSums(want)
	}
	d.remote = newRemote(s, url, k.expected())
	d.partial = newPartial(k, s.Chunk)
	if missing := d.partial.plan.claim(0, 0); !missing.empty() {
		if d.first, err = d.remote.ask(d.ctx, missing); err != nil {
			return err
		}
	}
	if k.Size == 0 {
		if s.MaxBytes > 0 && d.first.Size > s.MaxBytes {
			d.first.close()
			return tooLarge(url, s.MaxBytes)
		}
		k.Fingerprint = d.first.Fingerprint
		d.remote.known, d.partial.plan.size = k.expected(), k.Size
	}
	d.kept, d.Fingerprint = k, k.Fingerprint
	return nil
}

// Start begins to write, into the directory given to Open.
func (d *Download) Start() error {
	flags := os.O_RDWR
	name := path.Join(d.dir, partialName)
	if d.Reused == 0 {
		// Whoever may still write to an old one writes other bytes.
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot begin the partial archive: %w", err)
		}
		flags |= os.O_CREATE | os.O_EXCL
	}
	var err error
	if d.partial.file, err = d.root.OpenFile(name, flags, 0o600); err != nil {
		return fmt.Errorf("cannot open the partial archive: %w", err)
	}
	if d.Size > 0 {
		if d.partial.journal, err = newJournal(d.root, d.dir, d.kept); err != nil {
			return err
		}
		// What an earlier attempt left may have been there for hours: the new
		// journal must soon say again that it is on the disk.
		pause := firstSync
		if d.Reused > 0 {
			pause = 0
		}
		d.run(func() error {
			return syncNowAndThen(d.ctx, pause, func() error { return d.partial.sync(d.Sync) })
		})
	}
	n := d.remote.source.Connections // those that are not needed leave at once
	d.partial.locked(func(p *plan) {
		for id := range n {
			p.giveBack(id)
		}
		p.claim(0, 0)
	})
	for id := range n {
		var a *answer
		if id == 0 {
			a = d.first
		}
		d.run(func() error { return connection{id, d.remote, d.partial}.run(d.ctx, a) })
	}
	d.run(d.hash)
	context.AfterFunc(d.ctx, func() { d.partial.finish(nil, context.Cause(d.ctx)) })
	return nil
}

// run calls f beside the caller. Its error ends the download.
func (d *Download) run(f func() error) {
	d.all.Go(func() {
		if err := f(); err != nil {
			d.Stop(err)
		}
	})
}

// hash adds up the archive as it grows. The states of the digests are kept.
func (d *Download) hash() error {
	buf := make([]byte, hashedAtOnce)
	for r := (&reader{d.partial, d.kept.Hashed}); ; {
		n, err := r.Read(buf)
		if err == io.EOF {
			d.partial.finish(d.sums.hex(), nil)
			return nil
		}
		if err != nil {
			return err
		}
		for _, h := range d.sums {
			h.Write(buf[:n])
		}
		states := d.sums.states()
		if err := d.partial.update(r.pos == d.Size, func(p *plan) { p.Hashed, p.Sums = r.pos, states }); err != nil {
			return err
		}
	}
}

// syncNowAndThen calls sync, first after a pause. It runs beside the transfers, so
// that none waits for the disk.
func syncNowAndThen(ctx context.Context, pause time.Duration, sync func() error) error {
	for sleep(ctx, pause) == nil {
		start := time.Now()
		if err := sync(); err != nil {
			return err
		}
		pause = max(syncPause, 3*time.Since(start))
	}
	return nil
}

// Sync waits until what is there is on the disk, and returns an error if any of
// it was ever lost on the way: who reads it gets something else.
func (d *Download) Sync() error {
	d.syncing.Lock() // an error is told once: to the one who syncs
	defer d.syncing.Unlock()
	if err := d.partial.file.Sync(); err != nil && d.lost == nil {
		d.lost = fmt.Errorf("cannot sync the partial archive: %w", err)
	}
	return d.lost
}

// Stop ends the download with err, for all who read or wait. Its connections end
// at once; what they have received but not begun to write is dropped.
func (d *Download) Stop(err error) {
	d.partial.finish(nil, err)
	d.cancel(err)
}

// Close ends the download and waits until nothing is written any more.
func (d *Download) Close() error {
	d.cancel(errClosed)
	d.all.Wait()
	if d.first != nil {
		d.first.close()
	}
	var err error
	for _, f := range []*os.File{d.partial.journal, d.partial.file} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Wait returns the digests of the whole archive, in hex by algorithm, once it is
// there. Errors are ErrUnreachable (with ErrChanged, if it is that), ErrNotFound,
// ErrUnauthorized, ErrTooLarge, unpack.ErrNotArchive, those of the file system,
// that of Stop, and the cause of the context's end.
func (d *Download) Wait() (map[string]string, error) {
	err := d.partial.await(func() bool { return d.partial.sums != nil })
	return d.partial.sums, err
}

// Reader reads the archive from its start, waiting for what is not there yet.
func (d *Download) Reader() io.Reader { return &reader{partial: d.partial} }

// Stats says how far a download is, in bytes of the archive.
type Stats struct {
	Present   int64
	Remaining int64 // -1 while the size is unknown
	Hashed    int64 // by this download, not by an earlier one
	// Wasted were received for nothing: they were there already, or another attempt has
	// to receive them again.
	Wasted    int64
	Resumable bool // another attempt could go on from what is there
}

// Stats may be asked for at any time.
func (d *Download) Stats() (s Stats) {
	d.partial.locked(func(p *plan) {
		s = Stats{Present: p.There.bytes(), Hashed: p.Hashed - d.kept.Hashed, Wasted: d.partial.wasted.Load(), Resumable: len(d.partial.noted.There) > 0}
		if s.Remaining = p.size - s.Present; p.size == 0 {
			s.Remaining = -1
		}
	})
	if !s.Resumable {
		s.Wasted += s.Present
	}
	return s
}

// Discard removes what a download has left in dir, below root.
func Discard(root *os.Root, dir string) error {
	for _, name := range []string{journalName, partialName} {
		if err := root.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the archive: %w", err)
		}
	}
	return nil
}
