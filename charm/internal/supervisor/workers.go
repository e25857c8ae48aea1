package supervisor

import (
	"context"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// workersView is what the supervisor knows of the workers from look to look.
type workersView struct {
	api    *concourse.API // of the web server that was described last
	apiOf  concourse.Web
	list   attempt[Listing]
	listed Listed
	lands  time.Time // since when this unit's worker is to land for good
	told   time.Time // when it was told last
	known  time.Time // until when it was not Unlisted
	web    time.Time // until when a web server has answered
}

// lookAtWorkers lists the workers every now and then, where the web server is.
func (s *Supervisor) lookAtWorkers(ctx context.Context, seen *Seen) {
	v, now := &s.workers, time.Now()
	if web := s.spec.Web; web != nil && (v.api == nil || v.apiOf != *web) {
		v.api, v.apiOf = concourse.NewAPI(s.Client, *web), *web
		v.list.giveUp()
	}
	if v.listed.Forget(s.services.web.state.PID) {
		v.list.giveUp()
	}
	if seen.WebServes && s.spec.Web != nil && v.listed.Due(now, s.spec, s.Workers) {
		s.listWorkers(ctx)
	}
	v.listed.Tell(now, s.spec, s.Absence, s.TakeUp, seen, &s.status)
	if !s.spec.Land {
		v.lands = time.Time{}
	} else if v.lands.IsZero() {
		v.lands = now
	}
	if s.spec.Turn != Unlisted || v.known.IsZero() {
		v.known = now
	}
	if seen.WebServes || s.spec.Web == nil && s.status.Answering != "" || v.web.IsZero() {
		v.web = now
	}
	seen.ToldAgo, seen.UnlistedFor, seen.Webless = now.Sub(v.told), now.Sub(v.known), now.Sub(v.web)
	seen.LandedFor = s.spec.LandedFor(now, v.lands, s.memory)
}

func (s *Supervisor) listWorkers(ctx context.Context) {
	v := &s.workers
	api, lands := v.api, s.spec.Lands()
	listing, done, err := v.list.poll(ctx, s, func(ctx context.Context) (l Listing, err error) {
		if l.Workers, err = api.Workers(ctx); err != nil || !lands {
			return l, err
		}
		if l.Idle, err = api.Idle(ctx); err != nil {
			s.Log.Warn("takes it that builds run", "error", err)
		}
		return l, nil
	})
	if err != nil {
		s.Log.Warn("cannot list workers", "error", err)
	}
	if done {
		v.listed.Read(time.Now(), s.spec, listing)
	}
}
