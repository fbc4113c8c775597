// SPDX-License-Identifier: Apache-2.0

// Command image builds a container image that holds bpfwhy and nothing else, without a container
// runtime: an OCI layout in one tar file. The same sources give the same image, byte for byte.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	out := flag.String("o", "bpfwhy.tar", "the `file` to write")
	tag := flag.String("tag", "registry.example.com/bpfwhy:0.1.0", "the `name` of the image, with a tag")
	flag.Parse()
	if flag.NArg() > 0 || !strings.Contains(*tag, ":") {
		fmt.Fprintf(os.Stderr, "image: %q, -tag %q: only flags are taken, and a name has a tag\n", flag.Args(), *tag)
		os.Exit(2)
	}
	digest, err := build(*out, *tag)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

// build writes the image, and returns the digest of its manifest.
func build(file, tag string) (digest string, err error) {
	binary, err := compiled()
	if err != nil {
		return "", err
	}
	layer, err := layerOf(binary)
	if err != nil {
		return "", fmt.Errorf("write layer: %w", err)
	}
	var i image
	if err := i.add(layer, tag); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	var b bytes.Buffer
	if err := archive(&b, i.files); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	return i.digest, os.WriteFile(file, b.Bytes(), 0o644)
}

// compiled builds the command, with nothing in it of the machine that builds: no paths, no state of
// its checkout.
func compiled() ([]byte, error) {
	dir, err := os.MkdirTemp("", "bpfwhy-image")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "bpfwhy")
	c := exec.Command("go", "build", "-tags=grpcnotrace", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", binary, "github.com/bpfwhy/bpfwhy/cmd/bpfwhy")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bpfwhy: %w\n%s", err, out)
	}
	return os.ReadFile(binary)
}

// entry is a file of an archive, or a folder where the name ends so.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// archive has no times and no owners.
func archive(w io.Writer, entries []entry) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.content)), Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(e.content); err != nil {
			return err
		}
	}
	return t.Close()
}

// layerOf is the file system of the image.
func layerOf(binary []byte) ([]byte, error) {
	entries := []entry{{name: "tmp/", mode: 0o1777}, {name: "bin/", mode: 0o755}, {name: "bin/bpfwhy", mode: 0o755, content: binary}}
	for _, dir := range []string{"proc/", "sys/", "var/", "var/lib/", "var/lib/bpfwhy/"} {
		entries = append(entries, entry{name: dir, mode: 0o755})
	}
	var b bytes.Buffer
	err := archive(&b, entries)
	return b.Bytes(), err
}

// The types of the parts of an image (OCI image specification 1.1).
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor names a part by its hash.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// image collects the files of an OCI layout.
type image struct {
	files  []entry
	digest string // of the manifest
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (i *image) blob(mediaType string, b []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digestOf(b), Size: len(b)}
	i.files = append(i.files, entry{"blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:"), 0o644, b})
	return d
}

func (i *image) document(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	return i.blob(mediaType, b), err
}

// add writes a layer, what describes it, and the index.
func (i *image) add(layer []byte, tag string) error {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(layer); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	config, err := i.document(typeConfig, map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{
			"Entrypoint": []string{"/bin/bpfwhy"}, "Env": []string{"PATH=/bin"}, "WorkingDir": "/",
			"Labels": map[string]string{"org.opencontainers.image.title": "bpfwhy", "org.opencontainers.image.licenses": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	if err != nil {
		return err
	}
	manifest, err := i.document(typeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": config,
		"layers": []descriptor{i.blob(typeLayer, packed.Bytes())},
	})
	if err != nil {
		return err
	}
	i.digest = manifest.Digest
	manifest.Platform = map[string]string{"architecture": "amd64", "os": "linux"}
	manifest.Annotations = map[string]string{"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag[strings.LastIndexByte(tag, ':')+1:]}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	i.files = append(i.files, entry{"index.json", 0o644, index}, entry{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)})
	return nil
}
