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

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
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
	// stream is taken up again without receiving more than Rate would in Stall.
	Attempts int
	// Pause is the time before the second attempt; it doubles each time.
	Pause time.Duration
	// Stall is how long a transfer may stay silent, or slower than Rate.
	Stall time.Duration
	// Rate is the slowest a transfer may be, in bytes a second over Stall.
	Rate int64
	// Total is how long an archive may take; 0 leaves that to the context.
	Total time.Duration
}

// DefaultPolicy rides out the restart of a server (0.5+1+2+4 s). Longer outages
// are for the caller, who tells people about them. Below 1 kB/s a release would
// take a week: another connection may get a better server. Six hours suffice for
// 1 GB at 50 kB/s.
var DefaultPolicy = Policy{Attempts: 5, Pause: 500 * time.Millisecond, Stall: 30 * time.Second, Rate: 1000, Total: 6 * time.Hour}

// maxRetryAfter bounds what a server may ask for in Retry-After.
const maxRetryAfter = time.Minute

// maxSide bounds digest files and API answers.
const maxSide = 1 << 20

// NewClient limits each step of a request, but not its whole length: a release
// may take an hour on a slow line. Proxies come from the environment.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		// HTTP/2 would put all ranges of an archive on one connection: no gain
		// from several, and its flow control as one more limit.
		ForceAttemptHTTP2:     false,
		MaxIdleConnsPerHost:   16,
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
	// Token goes with requests to the host of URL as "Authorization: Bearer",
	// and to no other host, wherever a request is redirected to.
	Token string
	// Connections is how many ranges are fetched at a time; 0 is
	// DefaultConnections.
	Connections int
	// Chunk is the length of a range in bytes; 0 is DefaultChunk.
	Chunk int64
}

const (
	// DefaultConnections: one connection seldom fills a long line, and more than
	// a handful is what servers begin to refuse.
	DefaultConnections = 4
	// DefaultChunk is a second at 128 Mbit/s. A release has about 50, so that the
	// requests themselves cost nothing.
	DefaultChunk = 16 << 20
	// maxRedirects: GitHub needs one.
	maxRedirects = 10
)

var errRedirects = errors.New("it redirects without end")

// client is the source's with this package's rules for redirects.
func (s Source) client() *http.Client {
	c := *s.Client
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return errRedirects
		}
		// net/http keeps it for subdomains and for other ports.
		if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
			req.Header.Del("Authorization")
		}
		return nil
	}
	return &c
}

// trusted tells whether the token may be sent to a host.
func (s Source) trusted(host string) bool {
	u, err := url.Parse(s.URL)
	return err == nil && (u.Host == host || u.Host == "github.com" && host == "api.github.com")
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
	client := s.client()
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
		if s.Token != "" && s.trusted(req.URL.Host) {
			req.Header.Set("Authorization", "Bearer "+s.Token)
		}
		resp, err := client.Do(req)
		if ctx.Err() != nil {
			if err == nil {
				resp.Body.Close()
			}
			return nil, late(url, context.Cause(ctx), lastErr)
		}
		if errors.Is(err, errRedirects) {
			return nil, fmt.Errorf("%s: %w: %w", redact(url), ErrUnreachable, errRedirects)
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
		status := &statusError{code: resp.StatusCode, retryAfter: retryAfter(resp.Header)}
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
		if status.retryAfter > 0 {
			d = min(status.retryAfter, maxRetryAfter)
		}
	}
	return d
}

// retryAfter reads both forms of the header. A date is compared with the
// server's own clock.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return at.Sub(now)
}

type statusError struct {
	code       int
	retryAfter time.Duration
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
