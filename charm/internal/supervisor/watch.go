package supervisor

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// watched is a web server of any unit, as it is seen from here.
type watched struct {
	ask      attempt[bool]
	asked    time.Time // when the last question was answered by anything
	answered time.Time // when it has answered last as a web server should; zero for never
	alive    time.Time // when it was heard of last, or the watch began
}

// lookAtWatched asks the web servers that the spec names whether they answer. One that
// answers with an error is alive: where its database is away, another would fare no better.
func (s *Supervisor) lookAtWatched(ctx context.Context) {
	for address, w := range s.watched {
		if !slices.Contains(s.spec.Watch, address) {
			w.ask.giveUp()
			delete(s.watched, address)
		}
	}
	var answering, silent []string
	for _, address := range s.spec.Watch {
		w := s.watched[address]
		if w == nil {
			w = &watched{alive: time.Now()}
			s.watched[address] = w
		}
		s.watch(ctx, address, w)
		if !w.answered.IsZero() && time.Since(w.answered) < s.Absence {
			answering = append(answering, address)
		}
		if s.spec.Silence > 0 && time.Since(w.alive) > s.spec.Silence {
			silent = append(silent, address)
		}
	}
	s.status.Answering, s.status.Silent = strings.Join(answering, " "), strings.Join(silent, " ")
}

func (s *Supervisor) watch(ctx context.Context, address string, w *watched) {
	if time.Since(w.asked) < s.Watch {
		return
	}
	address, _, _ = strings.Cut(address, "#")
	well, done, err := w.ask.poll(ctx, s, func(ctx context.Context) (bool, error) {
		return concourse.WebAnswers(ctx, s.Client, address)
	})
	if err != nil || !done {
		return
	}
	w.asked, w.alive = time.Now(), time.Now()
	if well {
		w.answered = w.asked
	}
}
