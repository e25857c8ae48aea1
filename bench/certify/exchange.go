package certify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// pings is how often a file goes from one machine to the others and back.
const pings = 3

// visibleBetween measures on the clock of the machine that leads: no clocks of two
// machines are compared. A round is a file there and one back.
func visibleBetween(ctx context.Context, p *party) (string, error) {
	var mine seen
	var rounds []time.Duration
	for i := range pings {
		if _, err := gather(ctx, p, fmt.Sprint("ping-ready-", i), 0); err != nil {
			return "", err
		}
		took, err := p.ping(ctx, i)
		if ctx.Err() != nil || errors.Is(err, ErrLeft) {
			return "", errors.Join(ctx.Err(), err)
		}
		mine.note(err)
		rounds = append(rounds, took)
	}
	mine.Took = median(rounds)
	all, err := gather(ctx, p, "pings", mine)
	if err != nil {
		return "", err
	}
	if err := p.firstError(all); err != nil {
		return "", err
	}
	round := all[0].Took.Round(time.Millisecond)
	if round > 2*settle {
		return "", fmt.Errorf("a file there and one back took %v", round)
	}
	return fmt.Sprintf("there and back in %v", round), nil
}

// ping writes a file, which the others answer with one each. Who does not lead looks for
// it before it is there, which a cache may remember.
func (p *party) ping(ctx context.Context, i int) (took time.Duration, err error) {
	ping := p.path(fmt.Sprint("ping-", i))
	pong := func(n int) string { return ping + "." + p.ids[n] }
	if !p.leads() {
		err := p.await(ctx, 0, ping, page(i))
		// Whatever it has met: the answer is waited for.
		return 0, errors.Join(err, p.write(pong(p.me), page(i)))
	}
	for n := 1; n < len(p.ids); n++ { // it has looked for the answers, too
		if _, err := p.r.files.Read(pong(n)); err == nil {
			return 0, errors.New("an answer is there before the question")
		}
	}
	start := time.Now()
	err = p.write(ping, page(i))
	if err != nil {
		return 0, err
	}
	for n := 1; n < len(p.ids); n++ {
		err = errors.Join(err, p.await(ctx, n, pong(n), page(i)))
	}
	return time.Since(start), err
}

func (p *party) write(path string, data []byte) error {
	if err := p.r.files.Write(path+".new", data, 0o644); err != nil {
		return err
	}
	return p.r.files.Rename(path+".new", path)
}

// await waits for a file of one of the machines.
func (p *party) await(ctx context.Context, from int, path string, want []byte) error {
	watch := p.watch(p.ids[from])
	for start := time.Now(); ; {
		data, err := p.r.files.Read(path)
		switch {
		case err == nil && string(data) == string(want):
			return nil
		case err == nil:
			return errors.New("a file has other contents on another machine than it was written with")
		case !errors.Is(err, fs.ErrNotExist):
			return err
		case watch.left():
			return p.left(p.ids[from])
		case time.Since(start) > p.r.pace.check:
			return fmt.Errorf("a file that another machine has written is not to be seen after %v", p.r.pace.check)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// installsBetween serves the same release on each machine, over its own loopback: the
// machines need not reach each other.
func installsBetween(ctx context.Context, p *party) (string, error) {
	s, err := serve(p.ids[0])
	if err != nil {
		return "", err
	}
	defer s.close()
	worker, err := p.r.start(ctx)
	if err != nil {
		return "", err
	}
	defer worker.end()
	task := install{Root: p.path("volume"), Unit: unit(p.me), Source: s.URL()}
	s.hold() // nobody ends before all have begun
	var mine seen
	began, err := worker.begin(task)
	mine.note(err)
	begun, err := gather(ctx, p, "install-begun", mine)
	s.resume()
	if err != nil {
		return "", err
	}
	if mine.Error == "" {
		mine.Unit, err = worker.finish(began)
		mine.note(err)
	}
	if mine.Error == "" {
		got, err := worker.ask(request{Do: "verify", Install: &task})
		mine.note(err)
		mine.Sound = got.Got
	}
	mine.Begun = s.begun()
	all, err := gather(ctx, p, "installed", mine)
	if err != nil {
		return "", err
	}
	if err := errors.Join(p.firstError(begun), p.firstError(all)); err != nil {
		return "", err
	}
	var got []installed
	downloads := 0
	for i, one := range all {
		if !one.Sound {
			return "", fmt.Errorf("%s reads the release other than it was written", p.host(i))
		}
		got = append(got, one.Unit)
		downloads += one.Begun
	}
	if err := sameRelease(got, downloads); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d machines, one download", len(got)), nil
}
