package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

const (
	// maxRetryAfter bounds how long a server's rate limit is waited for.
	maxRetryAfter = time.Minute
	// maxFile bounds what is read of a file that is no archive. The longest is a list
	// of a hundred releases, with their notes and the names of all their files.
	maxFile = 32 << 20
	// maxRedirects: GitHub needs one.
	maxRedirects = 10
)

var (
	errRedirects = errors.New("it redirects without end")
	errDowngrade = errors.New("it redirects from https to http, where anybody can change what is sent")
)

// request asks for a URL until there is an answer worth having. A page where a
// file should be is none: a proxy wants somebody to log in.
func (s Source) request(ctx context.Context, method, url string, header http.Header) (*http.Response, error) {
	client := s.client()
	last := errors.New("no answer")
	for attempt := range s.Policy.Attempts {
		if attempt > 0 {
			sleep(ctx, s.pause(attempt, last)) // the next request tells if ctx has ended
		}
		req, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			return nil, unreachable(url, errors.Unwrap(err))
		}
		maps.Copy(req.Header, header)
		// Bytes as they are on the server: the digest is made of those.
		req.Header.Set("Accept-Encoding", "identity")
		if s.Token != "" && s.trusts(req.URL) {
			req.Header.Set("Authorization", "Bearer "+s.Token)
		}
		resp, err := client.Do(req)
		switch {
		case err != nil:
			err = errors.Unwrap(err) // from the method and the URL, which the sentence has already
		case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
			err = newStatusError(resp)
		case strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
			err = fmt.Errorf("%w: it is an HTML page", unpack.ErrNotArchive)
		case ctx.Err() == nil:
			return resp, nil
		}
		if resp != nil {
			resp.Body.Close()
		}
		if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
			return nil, unreachable(url, fmt.Errorf("%w: %w", last, cause)) // whom it was waiting for
		} else if cause != nil {
			return nil, cause
		}
		if last = err; !temporary(err) {
			break
		}
	}
	if status, ok := errors.AsType[*statusError](last); ok {
		return nil, fmt.Errorf("%s: %w: %w", redact(url), status.kind, status)
	}
	if errors.Is(last, unpack.ErrNotArchive) {
		return nil, fmt.Errorf("%s: %w", redact(url), last)
	}
	return nil, unreachable(url, last)
}

func unreachable(url string, err error) error {
	return fmt.Errorf("%s: %w: %w", redact(url), ErrUnreachable, err)
}

// client is the source's with this package's rules for redirects.
func (s Source) client() *http.Client {
	c := *s.Client
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return errRedirects
		}
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return errDowngrade
		}
		// net/http keeps it for subdomains and for other ports.
		if !s.trusts(req.URL) {
			req.Header.Del("Authorization")
		}
		return nil
	}
	return &c
}

// trusts tells whether the token may be sent to a URL: to the host of the source,
// for GitHub's also to that of its API, and never less protected than to the
// source.
func (s Source) trusts(target *url.URL) bool {
	u, err := url.Parse(s.URL)
	return err == nil && (target.Scheme == u.Scheme || target.Scheme == "https") &&
		(target.Host == u.Host || u.Host == "github.com" && target.Host == "api.github.com")
}

// temporary tells whether the same request may have another answer soon.
func temporary(err error) bool {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.temporary
	}
	return !errors.Is(err, errRedirects) && !errors.Is(err, errDowngrade) && !errors.Is(err, unpack.ErrNotArchive)
}

// statusError is an answer that is none of 200 and 206.
type statusError struct {
	code      int
	kind      error // ErrNotFound, ErrUnauthorized, or ErrUnreachable
	temporary bool  // the same request may have another answer soon
	refused   bool  // the server, not a proxy before it, says for good that this request is wrong
	limited   bool  // too many requests were made

	until time.Time     // when the server wants to be asked again, by its clock; zero if it does not say
	wait  time.Duration // how long that is from now
}

// newStatusError also reads what the server says about rates: Retry-After, in both of
// its forms, or GitHub's X-RateLimit headers. Times are compared with the server's
// clock, if it has one.
func newStatusError(resp *http.Response) *statusError {
	e := &statusError{code: resp.StatusCode, kind: ErrUnreachable}
	after, spent := resp.Header.Get("Retry-After"), resp.Header.Get("X-RateLimit-Remaining") == "0"
	e.limited = e.code == http.StatusTooManyRequests || e.code == http.StatusForbidden && (after != "" || spent)
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	e.until, _ = http.ParseTime(after)
	if seconds, err := strconv.ParseInt(after, 10, 64); err == nil {
		// A year is as good as for ever, and cannot overflow.
		e.until = now.Add(time.Duration(min(seconds, 366*24*3600)) * time.Second)
	} else if seconds, err := strconv.ParseInt(resp.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil && spent && e.until.IsZero() {
		e.until = time.Unix(seconds, 0)
	}
	if !e.until.IsZero() {
		e.wait = e.until.Sub(now)
	}
	switch {
	case e.limited:
		e.temporary = e.wait <= maxRetryAfter
	case e.code == http.StatusNotFound || e.code == http.StatusGone:
		e.kind, e.refused = ErrNotFound, true
	case e.code == http.StatusUnauthorized || e.code == http.StatusForbidden:
		e.kind, e.refused = ErrUnauthorized, true
	case e.code == http.StatusRequestTimeout:
		e.temporary = true
	case e.code >= 500:
		e.temporary = e.code != http.StatusNotImplemented
	case e.code >= 400:
		e.refused = e.code != http.StatusProxyAuthRequired
	}
	return e
}

// refuses tells whether the server may have what is asked for, and gives it to another
// request.
func refuses(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && (e.refused && e.kind != ErrNotFound && e.code != http.StatusUnauthorized || e.code == http.StatusNotImplemented)
}

func (e *statusError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("the server answered %d %s", e.code, http.StatusText(e.code)))
	switch {
	case e.limited && !e.until.IsZero():
		text += ": rate limited until " + e.until.UTC().Format(time.RFC3339)
	case e.limited:
		text += ": rate limited"
	}
	return text
}

// pause doubles with each attempt, and differs between machines so that they do
// not come back together. A server that names a time gets it.
func (s Source) pause(attempt int, last error) time.Duration {
	if status, ok := errors.AsType[*statusError](last); ok && status.wait > 0 {
		return min(status.wait, maxRetryAfter)
	}
	d := s.Policy.Pause << (attempt - 1)
	return d + rand.N(d/2+1)
}

// readFile returns a small file.
func (s Source) readFile(ctx context.Context, url string) ([]byte, error) {
	// One rate limit, and a minute for the file.
	ctx, cancel := context.WithTimeout(ctx, maxRetryAfter+time.Minute)
	defer cancel()
	resp, err := s.request(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFile))
	if err != nil {
		return nil, unreachable(url, err)
	}
	return data, nil
}

// redact keeps passwords in URLs out of logs and statuses.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the URL"
	}
	return u.Redacted()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
