package concourse

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// WebVersion asks a web server which version it runs.
func WebVersion(ctx context.Context, client *http.Client, port int) (string, error) {
	body, err := get(ctx, client, fmt.Sprintf("http://127.0.0.1:%d/api/v1/info", port))
	if err != nil {
		return "", err
	}
	var info struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("parse /api/v1/info: %w", err)
	}
	return info.Version, nil
}

// WebAnswers tells whether the web server at an address, host:port, answers as it should.
// An error is that nothing answers at all.
func WebAnswers(ctx context.Context, client *http.Client, address string) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/info", nil)
	if err != nil {
		return false, err
	}
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	return response.StatusCode == http.StatusOK, response.Body.Close()
}

// WorkerHealthy returns an error unless the worker's parts all answer.
func WorkerHealthy(ctx context.Context, client *http.Client, port int) error {
	_, err := get(ctx, client, fmt.Sprintf("http://127.0.0.1:%d/", port))
	return err
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 1<<20))
}
