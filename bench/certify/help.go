package certify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
	"time"
)

// Help is the other side of Options.Helper: a process that does what it is asked to, until
// in ends.
func Help(ctx context.Context, in io.Reader, out io.Writer) error { return help(ctx, disk{}, in, out) }

func help(ctx context.Context, f files, in io.Reader, out io.Writer) error {
	// Who started it may be killed: then nobody is to go on on the mount.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	questions, broken := make(chan request), make(chan error, 1)
	go func() {
		defer cancel()
		for from := json.NewDecoder(in); ; {
			var q request
			if err := from.Decode(&q); err != nil {
				broken <- err
				return
			}
			select {
			case questions <- q:
			case <-ctx.Done():
				return
			}
		}
	}()
	d := &deeds{files: f, tell: json.NewEncoder(out)}
	defer d.unlock()
	for {
		select {
		case q := <-questions:
			got, err := d.do(ctx, q)
			if err != nil {
				got.Error = oneLine(err)
			}
			if err := d.tell.Encode(got); err != nil {
				return err
			}
		case err := <-broken:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("cannot read what to do: %w", err)
		}
	}
}

// deeds is what an actor does.
type deeds struct {
	files    files
	tell     *json.Encoder
	held     lock
	stop     atomic.Bool
	watching chan error
}

func (d *deeds) do(ctx context.Context, q request) (got reply, err error) {
	switch q.Do {
	case "race":
		return d.race(q)
	case "lock":
		return d.lock(q)
	case "unlock":
		return got, d.unlock()
	case "find":
		return d.find(ctx, q)
	case "stat":
		got.Identity, err = d.files.Stat(q.Path)
		return got, err
	case "watch":
		return got, d.watch(q)
	case "watched":
		return got, d.watched()
	case "install":
		return d.install(ctx, *q.Install)
	case "verify":
		got.Got, err = sound(ctx, *q.Install)
		return got, err
	}
	return got, fmt.Errorf("there is no %q", q.Do)
}

// race tries to make each name, in a directory that others try it in, too.
func (d *deeds) race(q request) (reply, error) {
	var got reply
	for _, name := range q.Names {
		err := d.make(q, name)
		switch {
		case err == nil:
			got.Won = append(got.Won, name)
		case !errors.Is(err, fs.ErrExist):
			return got, err
		}
	}
	return got, nil
}

func (d *deeds) make(q request, name string) error {
	if q.How == "create" {
		return d.files.Create(q.Path + "/" + name)
	}
	return d.files.Link(q.How, q.Path+"/"+name) // How is the file that gets another name
}

func (d *deeds) lock(q request) (reply, error) {
	l, got, err := d.files.Lock(q.Path)
	if got {
		d.held = l
	}
	return reply{Got: got}, err
}

func (d *deeds) unlock() error {
	if d.held == nil {
		return nil
	}
	defer func() { d.held = nil }()
	return d.held.Unlock()
}

// find looks for a file that is not there yet, again and again.
func (d *deeds) find(ctx context.Context, q request) (reply, error) {
	if _, err := d.files.Read(q.Path); !errors.Is(err, fs.ErrNotExist) {
		return reply{}, fmt.Errorf("a file is there that nobody has made: %v", err)
	}
	if err := d.tell.Encode(reply{Began: true}); err != nil {
		return reply{}, err
	}
	for ctx.Err() == nil {
		data, err := d.files.Read(q.Path)
		if err == nil && len(data) > 0 {
			return reply{Data: data}, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return reply{}, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return reply{}, ctx.Err()
}

// pageBytes is how long the file is that is watched while it is replaced. All its bytes
// are the same.
const pageBytes = 16 << 10

func page(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, pageBytes) }

// watch reads a file again and again until it is asked what it has seen.
func (d *deeds) watch(q request) error {
	d.stop.Store(false)
	d.watching = make(chan error, 1)
	look := func() error {
		data, err := d.files.Read(q.Path)
		if errors.Is(err, syscall.ESTALE) { // NFS says so once of a name that was replaced
			data, err = d.files.Read(q.Path)
		}
		if err != nil {
			return fmt.Errorf("a file is not there while it is replaced: %w", err)
		}
		if len(data) != pageBytes || bytes.Count(data, data[:1]) != pageBytes {
			return errors.New("a file that is replaced was read in part, or mixed")
		}
		return nil
	}
	if err := look(); err != nil {
		return err
	}
	go func() {
		for !d.stop.Load() {
			if err := look(); err != nil {
				d.watching <- err
				return
			}
		}
		d.watching <- nil
	}()
	return nil
}

func (d *deeds) watched() error {
	d.stop.Store(true)
	return <-d.watching
}
