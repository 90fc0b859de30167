/** Program name -> hex SHA-256 of the file. */
export type Pins = Readonly<Record<string, string>> | undefined;

/** Key of the programs of the node image, which are the same for every Kubernetes version. */
export const NODE_SET = 'node';

/**
 * What building each program gives, by Kubernetes version. It is reproducible: every program of v1.37.2 and of the node
 * gave the same bytes in another folder with an empty build cache. A release without an entry is taken as built.
 */
export const PINNED_PROGRAMS: Readonly<Record<string, Pins>> = {
  'v1.37.2': {
    kubeadm: '8728a841d3de578a13f98bb6c2008887a73462dc037041deaa2ca9366515e80f',
    kubelet: 'a47d1de02aedeb072ef2ac45ab0e78f2482bde890ff44d2a020223a6492e579c',
    kubectl: '27640a08b7a86485223121ed5fc39ea4cad8368e082fefd26e728a8fb2b785b5',
    'kube-apiserver': '5b8161af5e66766c8c81d4686bc0c4cddf536fa2dc1925e29350e46850522950',
    'kube-controller-manager': '6670b17ee7b15b1151e97fd1dd7cf4f9436859c996162ad5edc94d55dcbc404b',
    'kube-scheduler': '1b72548e37ff9733365dba31fa631f5213b5621c6597f26387154f4f70d273a9',
    'kube-proxy': '087cf80dd5dd1fd4e3be7cd02fbb7aa923ec8d45b33419a95116aa58d9b03176',
    crictl: '4687c6b8076c0374768fbfaa1a4c46f5eb9784adf8c994f6fcb32c0ee1c971d2',
    etcd: 'e3af324b0397b8d82f2b582536e670f34296c7517b1c1de4b281b04fcea9bae5',
    coredns: 'fd77ecb04a7c3070977764ec33d3704c7bd478370bd61b5a329ed885aee7f638',
    bridge: 'ecb297ad74e45c8f9dc3d248095b5b2c69ff663d503925ff9b2cafafaabf59a2',
    'host-local': '682b882cceb09e40b2c05b87ef059ac866d9b2faf323f799115ff07c25e77649',
    loopback: 'a996c01d88ded20922b49fb86e2e6e4bdefbb4a5f35d344dac7aab023717d3f6',
    portmap: '04e7d30e882f0396852bf628291357fda0b18ba3dc615c2821807080b2c00cf5',
    flanneld: 'd432d712972e67fedde80a47e247bc2ba9cc7e05689bc0f326e9f27550f0f882',
    pause: '294fd320594dd53e89bbc7f9252f657808b1a57c8df223e3cc94ef3bb07fbc29',
  },
  'v1.36.3': {
    kubeadm: '7018a9b8178c9d39f87e16274fc756ea8284b06826740c283625e6dfc30da043',
    kubelet: '77e7bbd3efaac168321388e10a1f69685f9eb52b5466865001ec35eb4cce68a0',
    kubectl: '5f06f1d6d3d79c40e91e7b22ec9e83ad377709331c8c72f67878f56474bbc700',
    'kube-apiserver': '4560d92e51b1542df28bca45cd00ef4690dd5e003f9b47a6280930fa812c0758',
    'kube-controller-manager': 'fb0db7591fb1644bc2a3f4b228394fbd04f30c0a522582ea33001824dac5fcd2',
    'kube-scheduler': '4e293fc59aac029e95c23bc95c78fdd954de8be5dc5386050a039a12830464f9',
    'kube-proxy': 'c77ed05679b35e71270ac90cc4a7a863476d37944efb03ad9150ee38cb3a2c52',
    crictl: '4687c6b8076c0374768fbfaa1a4c46f5eb9784adf8c994f6fcb32c0ee1c971d2',
    etcd: '79d9221680456ae505529f3aad75313bc6207009edd7e1085d94a5ee41ce2fab',
    coredns: 'eda6350a9668e48bac839ec12b36c2765721891914ed97cbe02c2ec7336d6073',
    bridge: 'ecb297ad74e45c8f9dc3d248095b5b2c69ff663d503925ff9b2cafafaabf59a2',
    'host-local': '682b882cceb09e40b2c05b87ef059ac866d9b2faf323f799115ff07c25e77649',
    loopback: 'a996c01d88ded20922b49fb86e2e6e4bdefbb4a5f35d344dac7aab023717d3f6',
    portmap: '04e7d30e882f0396852bf628291357fda0b18ba3dc615c2821807080b2c00cf5',
    flanneld: 'd432d712972e67fedde80a47e247bc2ba9cc7e05689bc0f326e9f27550f0f882',
    pause: '294fd320594dd53e89bbc7f9252f657808b1a57c8df223e3cc94ef3bb07fbc29',
  },
  'v1.35.4': {
    kubeadm: '0f4695bd0c7ec67e17060ab1e484b60388225f0e5a791e15fb5e70acf7fe172d',
    kubelet: '2598040db3ad6c6a4ac9a632948c7b084baead94bf526a9779669a567d25cfa3',
    kubectl: 'd0089e0853d05c259bb8fa921ff2b8aa64aa66bea2302dd442e15018429c160d',
    'kube-apiserver': '2471407e6d24f2b78e1ec7f969794b68874270497f27465c9bedccc760846c35',
    'kube-controller-manager': 'cc982d413803b9d98d58b40e5b177beacca5c94496e713d0221543697584de54',
    'kube-scheduler': 'a957409198bc9d9967a181a8633e914ac0f70b431f297b593d4663170cbb7e41',
    'kube-proxy': 'c1ae8273edfbac273e7b4f3f79b38110ba5972c831f47f1bd93fbeb27b6a963e',
    crictl: '4687c6b8076c0374768fbfaa1a4c46f5eb9784adf8c994f6fcb32c0ee1c971d2',
    etcd: '6c9d6a66023f9547fd5fdc3b28008209b46ca9e518a29b1916f2a538b678c451',
    coredns: '30fb2cad152c5fc2f665288f350cdb500139f98ca88ae5bb24b2ad68071f488f',
    bridge: 'ecb297ad74e45c8f9dc3d248095b5b2c69ff663d503925ff9b2cafafaabf59a2',
    'host-local': '682b882cceb09e40b2c05b87ef059ac866d9b2faf323f799115ff07c25e77649',
    loopback: 'a996c01d88ded20922b49fb86e2e6e4bdefbb4a5f35d344dac7aab023717d3f6',
    portmap: '04e7d30e882f0396852bf628291357fda0b18ba3dc615c2821807080b2c00cf5',
    flanneld: 'd432d712972e67fedde80a47e247bc2ba9cc7e05689bc0f326e9f27550f0f882',
    pause: '294fd320594dd53e89bbc7f9252f657808b1a57c8df223e3cc94ef3bb07fbc29',
  },
  [NODE_SET]: {
    containerd: '1b1e73e62e00b58072783a542d27da8bdcf36cef4a7ac3eefcc8580f55192608',
    ctr: '0621883887dc7520299f9b9fafe9d52e9c01fec8b5bb5d15179a8c963ed4db01',
    'containerd-shim-runc-v2': '29dd69a542f2efccedc8f67c5764ffeb27018a23dcea527ba0bf3d850a33c2e8',
  },
};

/**
 * SHA-256 of packed files whose every byte comes from pinned programs, by Kubernetes version and path in its folder.
 * Images with files of Debian packages are not here: they change when Debian mends something.
 */
export const PINNED_FILES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'v1.37.2': {
    'cni-plugins.tar.gz': '30a75cf1209e13935300bde8e5a1aebf54876dc5ef9b06e4c85d0abbb9c60599',
    'images/kube-apiserver.tar': '0cae7c86b1c0c65ecf532ef9d0404d360ea25cb1c5dfcb0f07e995688727febe',
    'images/kube-controller-manager.tar': '088a703ff9821473e2d67c88291d0273edade8d78748957714838a9166f827ce',
    'images/kube-scheduler.tar': '3e485480924321365cdec085a788b77463884f468ae843ca0d189979adc91f8c',
    'images/etcd.tar': '17bf3df3ccd158b08391c686eff26c252933993288ec76df6697fb8cbc011380',
    'images/coredns.tar': '9cfbbad3b44166d2d50dfa6a184d92ebd40069094494ad9a26126a6bb36d6c7e',
    'images/pause.tar': 'f99a2f56ea439e316ca07d9016057284146a9c38cbf4bc5ac55157f18a929d6b',
  },
  'v1.36.3': {
    'cni-plugins.tar.gz': '30a75cf1209e13935300bde8e5a1aebf54876dc5ef9b06e4c85d0abbb9c60599',
    'images/kube-apiserver.tar': '828562d564055419b2ad049792e60688d4410651ca0f81040d7be898dae6722c',
    'images/kube-controller-manager.tar': '5fb5e6efc1dfef4391ac15f491a4f81a084e0666850939a7df88d811dddf08a1',
    'images/kube-scheduler.tar': '99698e92cb453b59ece0919320b442855f5a884df915fffa3c1c22ad7cb598f9',
    'images/etcd.tar': '0b9329a57bfa03b89f3c0ab5d6ffb34bf7007d024a7cf373da7bd984cf2c65e0',
    'images/coredns.tar': '090af2422022f2d569691865982cf62993d09b984ab0af7b259947582d859433',
    'images/pause.tar': 'f99a2f56ea439e316ca07d9016057284146a9c38cbf4bc5ac55157f18a929d6b',
  },
  'v1.35.4': {
    'cni-plugins.tar.gz': '30a75cf1209e13935300bde8e5a1aebf54876dc5ef9b06e4c85d0abbb9c60599',
    'images/kube-apiserver.tar': '51496b8c6a8138835b3c0d458028e3d6464b675aed460cf9fe4e7fefc99eb383',
    'images/kube-controller-manager.tar': 'fd42f490018de8dff18345111818506dab2029d27460b4b4bc399835ea061fe8',
    'images/kube-scheduler.tar': 'ca50316f2e88a81c1716c2d7fb428185e024fb79f591e4081ad8aba755e70c51',
    'images/etcd.tar': 'cd93bfc7f974210aa09ea2b89bf29fd5ec0a98fbc2118e64c15d6f3c24d4f104',
    'images/coredns.tar': 'e3d73fe3df5cfad4db4e5af0eb5a1777d052684fa6f032d8215e4f1ca9af6d7b',
    'images/pause.tar': 'e344cc2a24ea8becdcbb818ca194eae50bfe455f229acea8bddaffef33b3c103',
  },
};
