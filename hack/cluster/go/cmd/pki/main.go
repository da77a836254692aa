// Command pki writes the certificates of a dev cluster into a folder:
//
//	pki DIR NODE HOST...
//
// HOST... are the names and addresses of the API server and the kubelet. They
// are for a cluster that lives for days on one machine: one authority for
// everything, ten years.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type identity struct{ file, name, group string }

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: pki DIR NODE HOST...")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "pki:", err)
		os.Exit(1)
	}
}

func write(dir, node string, hosts []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	caKey, err := newKey(dir, "ca")
	if err != nil {
		return err
	}
	ca := template("kinora-dev-cluster", "")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	if err := sign(dir, "ca", ca, ca, caKey, caKey); err != nil {
		return err
	}
	// Service account tokens are signed with a key of their own.
	saKey, err := newKey(dir, "sa")
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&saKey.PublicKey)
	if err != nil {
		return err
	}
	if err := writePEM(dir, "sa.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	for _, id := range []identity{
		{"apiserver", "kube-apiserver", ""},
		{"apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"},
		{"admin", "kubernetes-admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
		{"dns", "kinora-dev-dns", "system:masters"},
		{"kubelet", "system:node:" + node, "system:nodes"},
	} {
		key, err := newKey(dir, id.file)
		if err != nil {
			return err
		}
		cert := template(id.name, id.group)
		cert.KeyUsage = x509.KeyUsageDigitalSignature
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if id.file == "apiserver" || id.file == "kubelet" {
			cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
			addHosts(cert, hosts)
		}
		if err := sign(dir, id.file, cert, ca, key, caKey); err != nil {
			return err
		}
	}
	return nil
}

func addHosts(cert *x509.Certificate, hosts []string) {
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, host)
		}
	}
}

func template(name, group string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the kernel gives no random numbers: nothing can go on
	}
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
	}
}

func newKey(dir, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(dir, name+".key", "EC PRIVATE KEY", encoded)
}

func sign(dir, name string, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) error {
	encoded, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		return err
	}
	return writePEM(dir, name+".crt", "CERTIFICATE", encoded)
}

func writePEM(dir, name, kind string, data []byte) error {
	return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600)
}
