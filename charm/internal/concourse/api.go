package concourse

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// API is the web server of this unit, as its administrator sees it.
type API struct {
	url    string
	client *http.Client
}

// NewAPI logs in as fly does when it is first used, and again when that has expired: the
// client's name and secret are those of fly's source.
func NewAPI(client *http.Client, web Web) *API {
	base := fmt.Sprintf("http://127.0.0.1:%d", web.Port)
	login := clientcredentials.Config{
		ClientID: "fly", ClientSecret: "Zmx5", AuthStyle: oauth2.AuthStyleInHeader, TokenURL: base + "/sky/issuer/token",
		Scopes:         []string{"openid", "profile", "email", "federated:id", "groups"},
		EndpointParams: url.Values{"grant_type": {"password"}, "username": {web.AdminUser}, "password": {web.Keys.AdminPassword}},
	}
	authorized := login.Client(context.WithValue(context.Background(), oauth2.HTTPClient, client))
	authorized.Timeout = client.Timeout
	return &API{url: base, client: authorized}
}

// ListedWorker is a worker as the web server lists it.
type ListedWorker struct {
	Name    string `json:"name"`
	State   string `json:"state"` // such as Running
	Address string `json:"addr"`  // of the web server that it has registered with, and a port; empty for one that has landed
	Version string `json:"version"`
	Began   int64  `json:"start_time"` // when its process began, by the clock of its machine, in seconds
}

// States of a worker.
const (
	Running = "running"
	Stalled = "stalled" // not heard of for 30 s
	Landing = "landing" // ends with its builds, and takes no others
	Landed  = "landed"  // its builds have ended
)

// Workers lists all workers.
func (a *API) Workers(ctx context.Context) ([]ListedWorker, error) {
	var workers []ListedWorker
	_, body, err := request(ctx, a.client, http.MethodGet, a.url+"/api/v1/workers")
	if err == nil {
		err = json.Unmarshal(body, &workers)
	}
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	return workers, nil
}

// lastBuilds is how many builds are asked for. Where there were more, one that runs may be
// older than these.
const lastBuilds = 500

// Idle tells whether no build runs for sure. One that is pending has nothing on any worker.
func (a *API) Idle(ctx context.Context) (bool, error) {
	var builds []struct {
		Status string `json:"status"`
	}
	_, body, err := request(ctx, a.client, http.MethodGet, fmt.Sprintf("%s/api/v1/builds?limit=%d", a.url, lastBuilds))
	if err == nil {
		err = json.Unmarshal(body, &builds)
	}
	if err != nil {
		return false, fmt.Errorf("list builds: %w", err)
	}
	for _, b := range builds {
		if b.Status == "started" {
			return false, nil
		}
	}
	return len(builds) < lastBuilds, nil
}

// Prune has the web server forget a worker that does not run any more. One that it does
// not know is no error.
func (a *API) Prune(ctx context.Context, name string) error {
	status, _, err := request(ctx, a.client, http.MethodPut, a.url+"/api/v1/workers/"+url.PathEscape(name)+"/prune")
	if err != nil && status != http.StatusNotFound {
		return fmt.Errorf("prune worker %s: %w", name, err)
	}
	return nil
}

// IsWorkerOf tells whether a worker has the name of a unit of an application.
func IsWorkerOf(worker, application string) bool {
	number, ok := strings.CutPrefix(worker, application+"-")
	_, err := strconv.ParseUint(number, 10, 64)
	return ok && err == nil
}
