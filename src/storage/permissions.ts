/** What a repository does with its storage. */
export const STORAGE_OPERATIONS = ['list', 'put', 'put once', 'get', 'get range', 'delete'] as const
export type StorageOperation = (typeof STORAGE_OPERATIONS)[number]

/** For each operation the right that it needs, in the words of the kind of storage. */
export type StoragePermissions = Readonly<Record<StorageOperation, string>>

export const DIRECTORY_PERMISSIONS: StoragePermissions = {
  list: 'read and search (r-x) on the directory and all directories below it',
  put: 'write and search (-wx) on the directory, on those below it, and on ".staging" in it',
  'put once': 'a file system with hard links, which refuses a second file of one name',
  get: 'read (r--) on the files, search (--x) on the directories',
  'get range': 'read (r--) on the files, search (--x) on the directories',
  delete: 'write and search (-wx) on the directory and those below it',
}
