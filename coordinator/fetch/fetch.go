// Package fetch reads releases from a repository in GitHub's layout, on GitHub
// or on any mirror.
package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/unpack"
)

var (
	// ErrUnreachable: no answer, a server error, or a stream that broke off and
	// could not be taken up again.
	ErrUnreachable = errors.New("release source is unreachable")
	// ErrNotFound: the source says that there is no such release.
	ErrNotFound = errors.New("release not found")
	// ErrNoDigest: there is no usable digest beside the archive.
	ErrNoDigest = errors.New("release has no digest")
)

// Policy says how patient a Source is.
type Policy struct {
	// Attempts is how often a request is made, and how often in a row a broken
	// stream is taken up again without receiving a byte.
	Attempts int
	// Pause is the time before the second attempt; it doubles each time.
	Pause time.Duration
	// Stall is how long a stream may stay silent.
	Stall time.Duration
}

// DefaultPolicy rides out the restart of a server (0.5+1+2+4 s). Longer outages
// are for the caller, who tells people about them.
var DefaultPolicy = Policy{Attempts: 5, Pause: 500 * time.Millisecond, Stall: time.Minute}

// maxRetryAfter bounds what a server may ask for in Retry-After.
const maxRetryAfter = time.Minute

// maxSide bounds digest files and API answers.
const maxSide = 1 << 20

// NewClient limits each step of a request, but not its whole length: a release
// may take an hour on a slow line. Proxies come from the environment.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		ReadBufferSize:        256 << 10,
	}}
}

// Source is a repository: URL/releases/download/vVERSION/concourse-VERSION-linux-amd64.tgz.
type Source struct {
	URL    string
	Client *http.Client
	Policy Policy
}

// Archive returns the URL of a release's archive.
func (s Source) Archive(version string) string {
	return strings.TrimSuffix(s.URL, "/") + "/releases/download/v" + version + "/concourse-" + version + "-linux-amd64.tgz"
}

// Digest reads the side file .sha256 of the archive, else .sha1.
func (s Source) Digest(ctx context.Context, version string) (Digest, error) {
	archive := s.Archive(version)
	for _, algorithm := range []string{"sha256", "sha1"} {
		text, err := s.read(ctx, archive+"."+algorithm)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return Digest{}, err
		}
		sum, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		d, err := ParseDigest(algorithm + ":" + sum)
		if err != nil {
			return Digest{}, fmt.Errorf("%s: %w: the file holds no %s sum", redact(archive+"."+algorithm), ErrNoDigest, algorithm)
		}
		return d, nil
	}
	// Without this question a release that does not exist would look like one
	// that was published carelessly.
	r, err := s.do(ctx, http.MethodHead, archive, nil)
	if errors.Is(err, ErrNotFound) {
		return Digest{}, err
	}
	if err == nil {
		r.Body.Close()
	}
	return Digest{}, fmt.Errorf("%s: %w: neither .sha256 nor .sha1 is beside it", redact(archive), ErrNoDigest)
}

// Newest returns the tag of the newest release, such as "v7.14.3". Hosts other
// than github.com are asked in the layout of GitHub Enterprise.
func (s Source) Newest(ctx context.Context) (string, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return "", fmt.Errorf("%w: %q is no URL", ErrUnreachable, s.URL)
	}
	repo := strings.Split(strings.Trim(u.Path, "/"), "/")
	if u.Host == "" || len(repo) != 2 {
		return "", fmt.Errorf("%w: %s is not of the form https://HOST/OWNER/REPOSITORY", ErrUnreachable, u.Redacted())
	}
	api := *u
	api.Path = path.Join("/api/v3/repos", repo[0], repo[1], "releases/latest")
	if u.Host == "github.com" {
		api.Host = "api.github.com"
		api.Path = path.Join("/repos", repo[0], repo[1], "releases/latest")
	}
	data, err := s.read(ctx, api.String())
	if err != nil {
		return "", err
	}
	var latest struct {
		Tag string `json:"tag_name"`
	}
	if err := json.Unmarshal(data, &latest); err != nil || latest.Tag == "" {
		return "", fmt.Errorf("%s: %w: the answer names no tag", api.Redacted(), ErrUnreachable)
	}
	return latest.Tag, nil
}

func (s Source) read(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := s.do(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	data, err := io.ReadAll(io.LimitReader(r.Body, maxSide))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", redact(url), ErrUnreachable, err)
	}
	return data, nil
}

// do makes a request until it gets an answer worth having. A page where a file
// should be is no such answer: a proxy wants somebody to log in.
func (s Source) do(ctx context.Context, method, url string, header http.Header) (*http.Response, error) {
	var lastErr error
	for attempt := range s.Policy.Attempts {
		if attempt > 0 {
			if err := sleep(ctx, s.pause(attempt, lastErr)); err != nil {
				return nil, late(url, err, lastErr)
			}
		}
		req, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", redact(url), ErrUnreachable, err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		// Bytes as they are on the server: the digest is made of those.
		req.Header.Set("Accept-Encoding", "identity")
		resp, err := s.Client.Do(req)
		if ctx.Err() != nil {
			if err == nil {
				resp.Body.Close()
			}
			return nil, late(url, context.Cause(ctx), lastErr)
		}
		if err != nil {
			lastErr = err
			continue
		}
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
			if kind := resp.Header.Get("Content-Type"); strings.HasPrefix(kind, "text/html") {
				resp.Body.Close()
				return nil, fmt.Errorf("%s: %w: it is an HTML page", redact(url), unpack.ErrNotArchive)
			}
			return resp, nil
		}
		resp.Body.Close()
		status := &statusError{resp.StatusCode, resp.Header.Get("Retry-After")}
		switch {
		case status.code == http.StatusNotFound || status.code == http.StatusGone:
			return nil, fmt.Errorf("%s: %w", redact(url), ErrNotFound)
		case status.code >= 500 || status.code == http.StatusTooManyRequests:
			lastErr = status
		default:
			return nil, fmt.Errorf("%s: %w: %w", redact(url), ErrUnreachable, status)
		}
	}
	return nil, fmt.Errorf("%s: %w: %w", redact(url), ErrUnreachable, unwrapURL(lastErr))
}

// late says whom a deadline was waiting for. Other ends of a context have their
// own reason.
func late(url string, cause, last error) error {
	switch {
	case !errors.Is(cause, context.DeadlineExceeded):
		return cause
	case last == nil:
		return fmt.Errorf("%s: %w: no answer: %w", redact(url), ErrUnreachable, cause)
	}
	return fmt.Errorf("%s: %w: %w: %w", redact(url), ErrUnreachable, unwrapURL(last), cause)
}

// pause doubles with each attempt, and differs between machines so that they do
// not come back together. A server that names a time gets it.
func (s Source) pause(attempt int, last error) time.Duration {
	d := s.Policy.Pause << (attempt - 1)
	d += rand.N(d/2 + 1)
	var status *statusError
	if errors.As(last, &status) {
		if seconds, err := strconv.Atoi(status.retryAfter); err == nil && seconds > 0 {
			d = min(time.Duration(seconds)*time.Second, maxRetryAfter)
		}
	}
	return d
}

type statusError struct {
	code       int
	retryAfter string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the server answered %d %s", e.code, http.StatusText(e.code))
}

// unwrapURL drops the method and URL that net/http puts before an error: the
// sentence has the URL already.
func unwrapURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
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
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
